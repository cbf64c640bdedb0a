"""`python -m train.compare`: every way to score these messages, on folds that none has seen.

All that a model chooses (early stopping, calibration, threshold, LightGBM's rounds) it chooses
within the part that it learns from, so that the folds judge the way from data to model, not one
lucky model.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from export import onnx, sources, vocabulary
from export import pipeline as export
from export.sources import Source
from feedsieve import (
    backend_selection,
    backends,
    encoder,
    features,
    lexicon,
    padding,
    text,
    traits,
)
from feedsieve import classifier as scoring
from feedsieve.files import one_run_at_a_time, open_whole
from feedsieve.settings import settings
from train import (
    classifier,
    command,
    contenders,
    distil,
    duplicates,
    evaluate,
    head,
    layers,
    lexical,
    stack,
    tracking,
    trainer,
)
from train import finetune as finetuning
from train.classifier import folds
from train.contenders import Judgement, Part
from train.data import data_fingerprint, read_labeled, split
from train.embedding import Embedder
from train.kept import run_key
from train.slices import by_slice, precisions_at

_JUDGING = (  # the code that scores depend on; a change of it makes what was kept worthless
    backend_selection, backends, classifier, contenders, distil, duplicates, encoder, evaluate,
    export, features, finetuning, head, layers, lexical, lexicon, onnx, padding, scoring, stack,
    text, trainer, traits, vocabulary,
)  # fmt: skip
FOLDS = 5  # if nobody asks for more or fewer
TEST = "test"
DEFAULT_OUT = Path("docs/quality.md")
_FIGURES = {
    "f1": "F1",
    "average_precision": "AP",
    "precision_at_20": "P@20",
    "precision_at_100": "P@100",
    "ece": "ECE",
}
_SLICE_FIGURES = {"f1": "F1", "average_precision": "AP", "ece": "ECE"}


@dataclass(frozen=True)
class Trial:
    """One part to learn from and one to be judged on; rows of a frame."""

    name: str  # "fold 1" and so on, or "test"
    rest: np.ndarray
    judged: np.ndarray

    @property
    def file_name(self) -> str:
        """Its name as a part of the names of files."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Results:
    """Judgements by contender and trial, of messages in a frame."""

    frame: pd.DataFrame
    trials: Sequence[Trial]
    judgements: Mapping[str, Mapping[str, Judgement]]

    def figures(self, contender: str, trial: Trial) -> dict[str, float]:
        """Return the metrics of one contender in one trial."""
        judgement = self.judgements[contender][trial.name]
        labels = self.frame["label"].to_numpy()[trial.judged]
        return {
            **evaluate.evaluate(labels, judgement.scores, judgement.threshold),
            **precisions_at(labels, judgement.scores),
        }

    def slices(self, contender: str) -> list[dict[str, Any]]:
        """Return the metrics by language and length, over all folds together.

        F1 is that of the decisions, since every fold has a threshold of its own.
        """
        trials = [trial for trial in self.trials if trial.name != TEST]
        rows = np.concatenate([trial.judged for trial in trials])
        frame = self.frame.iloc[rows]
        found = [self.judgements[contender][trial.name] for trial in trials]
        scores = np.concatenate([judgement.scores for judgement in found])
        decided = np.concatenate([judgement.scores >= judgement.threshold for judgement in found])
        by_score = by_slice(frame["msg"].tolist(), frame["label"], scores, 0.5)
        by_decision = by_slice(frame["msg"].tolist(), frame["label"], decided.astype(float), 0.5)
        return [
            {**one, "f1": other["f1"]} for one, other in zip(by_score, by_decision, strict=True)
        ]


def compare(
    frame: pd.DataFrame,
    source: Source,
    seed: int,
    kept: Path,
    *,
    finetune: bool,
    test: bool,
    smaller: str | None = distil.ALL,
    count_folds: int = FOLDS,
) -> Results:
    """Let every contender learn from and judge each part of `frame`, and return what they said.

    What a contender said is kept below `kept`, so that a run that was ended goes on where it was.
    The folds are of the messages that are not of the test part; `test` adds a trial in which all
    of them are learnt from and the test part is judged. Without `finetune` the fine-tuned encoders
    are left out. `smaller` are the layers of one of these, which is distilled, as `layers_of`
    reads them; all of them are one contender less. Raises NoSuchLayers.
    """
    layers_kept = distil.layers_of(smaller, source.model.config.num_hidden_layers)
    parts = split(frame, seed)
    frame = pd.concat([parts.train, parts.test], ignore_index=True)
    count = len(parts.train)
    texts, labels = frame["msg"].tolist(), frame["label"].to_numpy()
    groups = duplicates.near_duplicate_groups(texts[:count], progress=False)
    trials = [
        Trial(f"fold {number}", rest, judged)
        for number, (rest, judged) in enumerate(folds(labels[:count], groups, seed, count_folds), 1)
    ]
    if test:
        trials.append(Trial(TEST, np.arange(count), np.arange(count, len(frame))))
    threads = settings().threads
    asked = [
        texts,
        labels.tolist(),
        count,
        groups.tolist(),
        seed,
        count_folds,
        classifier.PARAMETERS,
    ]
    place = kept / f"compare-{run_key(source, _JUDGING, asked)}"
    judgements: dict[str, dict[str, Judgement]] = {}
    with (
        one_run_at_a_time(place),
        tempfile.TemporaryDirectory(prefix="feedsieve-compare-") as folder,
    ):
        memory = _Memory(place)

        @cache
        def embedder() -> Embedder:  # one for all trials, and none if all are remembered
            return Embedder(export.export_encoder(source, Path(folder), texts, threads).fastest)

        ways: dict[str, Callable[[Part, Path], dict[str, Judgement]]] = {
            "linear": lambda part, _encoders: contenders.linear(part, seed),
            "frozen": lambda part, _encoders: contenders.frozen(part, embedder(), seed),
        }
        if finetune:
            ways["tuned"] = lambda part, encoders: contenders.tuned(
                part, source, seed, encoders, threads
            )
        if finetune and len(layers_kept) < source.model.config.num_hidden_layers:
            ways[f"distil-{'-'.join(map(str, layers_kept))}"] = lambda part, encoders: (
                contenders.tuned(part, source, seed, encoders, threads, layers_kept)
            )
        for trial in trials:
            # One for all ways: a small encoder is taught by large ones that another way has had.
            encoders = place / f"encoders-{trial.file_name}"
            part = Part(
                [texts[row] for row in trial.rest],
                labels[trial.rest],
                groups[trial.rest],
                [texts[row] for row in trial.judged],
            )
            for way, judge in ways.items():
                print(f"{way}, {trial.name}", file=sys.stderr)
                said = memory.recall(way, trial, partial(judge, part, encoders))
                for contender, judgement in said.items():
                    judgements.setdefault(contender, {})[trial.name] = judgement
            if finetune:
                shutil.rmtree(encoders, ignore_errors=True)
    return Results(frame, trials, judgements)


def table(results: Results) -> str:
    """Return all figures as Markdown: mean and standard deviation over folds, test, slices."""
    in_folds = [trial for trial in results.trials if trial.name != TEST]
    tests = [trial for trial in results.trials if trial.name == TEST]
    lines = [
        f"## {len(in_folds)} folds",
        "",
        "Mean over the folds, and after ± the standard deviation between them. P@20 and P@100 are "
        "the share of positives among the first 20 and 100 of a fold; ECE is the calibration "
        "error.",
        "",
        *_head("model", _FIGURES.values()),
    ]
    for contender in results.judgements:
        rows = [results.figures(contender, trial) for trial in in_folds]
        cells = [_spread([row.get(name) for row in rows]) for name in _FIGURES]
        lines.append(_row(contender, cells))
    for trial in tests:
        lines += ["", "## Test part", "", *_head("model", _FIGURES.values())]
        for contender in results.judgements:
            figures = results.figures(contender, trial)
            lines.append(_row(contender, [_number(figures.get(name)) for name in _FIGURES]))
    for kind in ("language", "length"):
        lines += ["", f"## By {kind}", "", "Over all folds together: F1, AP and ECE.", ""]
        found = {
            contender: [row for row in results.slices(contender) if row["slice"] == kind]
            for contender in results.judgements
        }
        first = next(iter(found.values()))
        lines += _head(
            "model", [f"{row['name']} ({row['n']}, {row['positives']} positive)" for row in first]
        )
        for contender, slices in found.items():
            cells = [" / ".join(_number(row[name]) for name in _SLICE_FIGURES) for row in slices]
            lines.append(_row(contender, cells))
    return "\n".join(lines) + "\n"


class _Memory:
    """What contenders said, in files, so that no trial is done twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(
        self, way: str, trial: Trial, judge: Callable[[], dict[str, Judgement]]
    ) -> dict[str, Judgement]:
        path = self.folder / f"{way}-{trial.file_name}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            return {
                name: Judgement(np.array(scores), threshold)
                for name, (scores, threshold) in kept.items()
            }
        said = judge()
        with open_whole(path) as file:
            json.dump(
                {name: (one.scores.tolist(), one.threshold) for name, one in said.items()}, file
            )
        return said


def _head(first: str, columns: Any) -> list[str]:
    names = [first, *columns]
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _spread(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    return f"{np.mean(numbers):.3f} ± {np.std(numbers, ddof=1) if len(numbers) > 1 else 0:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if there is nothing to compare on."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.distil and options.no_finetune:
        parser.error("--distil makes a fine-tuned encoder: leave out --no-finetune")
    return command.run("train.compare", options.data, lambda: _compare(options))


def _compare(options: argparse.Namespace) -> None:
    frame, source = read_labeled(options.data), sources.load(options.encoder)
    asked = {
        "data.fingerprint": data_fingerprint(frame),
        "encoder": sources.public_name(options.encoder),
        "finetune": not options.no_finetune,
        "distil": options.distil or f"{distil.FEW} at most",
        "folds": options.folds,
        "test": not options.no_test,
        "seed": options.seed,
    }
    with tracking.run("compare", asked) if options.track else nullcontext() as run:
        results = compare(
            frame,
            source,
            options.seed,
            settings().cache,
            finetune=not options.no_finetune,
            test=not options.no_test,
            smaller=options.distil,
            count_folds=options.folds,
        )
        page = _page(results, options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(options.out) as file:
            file.write(page)
        print(page)
        if run:
            with run.recording():
                run.log(metrics=_means(results))
                run.log_files(options.out)


def _means(results: Results) -> dict[str, float]:
    """Return the mean over the folds of every figure of every contender that has it in all."""
    in_folds = [trial for trial in results.trials if trial.name != TEST]
    means = {}
    for contender in results.judgements:
        rows = [results.figures(contender, trial) for trial in in_folds]
        for name in _FIGURES:
            if all(name in row for row in rows):
                means[f"{contender}.{name}"] = float(np.mean([row[name] for row in rows]))
    return means


def _page(results: Results, options: argparse.Namespace) -> str:
    flags = ["--distil", options.distil] if options.distil else []
    flags += ["--folds", str(options.folds)] if options.folds != FOLDS else []
    flags += [
        flag
        for flag, given in [("--no-finetune", options.no_finetune), ("--no-test", options.no_test)]
        if given
    ]
    command = [
        "python -m train.compare --data", options.data.name,
        "--encoder", sources.public_name(options.encoder),
        "--seed", str(options.seed), *flags,
    ]  # fmt: skip
    in_folds = [trial.judged for trial in results.trials if trial.name != TEST]
    labels = results.frame["label"].to_numpy()[np.concatenate(in_folds)]
    return (
        "# Quality\n\n"
        f"Written by `{' '.join(command)}`. The folds are of the {len(labels):,} messages of the "
        f"training part, {int(labels.sum()):,} of them positive. Near-duplicates are always in one "
        "fold; every model chooses what it chooses (when to stop, its calibration and threshold) "
        "within the part that it learns from.\n\n"
        f"{table(results)}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.compare",
        description="Compare ways to score messages by grouped, stratified cross-validation, and"
        " write the table. Fine-tuning takes an hour or more of it; it goes on where it was ended.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="as of python -m train"
    )
    parser.add_argument(
        "--encoder", default="wheel", metavar="SOURCE", help="as of python -m train"
    )
    command.add_distil(parser, "the layers of the smaller one of the fine-tuned encoders")
    parser.add_argument(
        "--no-finetune",
        action="store_true",
        help="leave fine-tuned encoders out: minutes, not an hour",
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        default=FOLDS,
        metavar="N",
        help="how many, 2 or more (%(default)s); each takes as long as a training, or two with"
        " --distil",
    )
    parser.add_argument(
        "--no-test", action="store_true", help="leave the test part alone, as while choosing"
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FILE", help="the page (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of folds and models (%(default)s)")
    command.add_no_track(parser)
    return parser


def _folds(given: str) -> int:
    if not given.isascii() or not given.isdigit() or int(given) < 2:
        raise argparse.ArgumentTypeError(f"a number, 2 or more, not {given!r}")
    return int(given)


if __name__ == "__main__":
    sys.exit(main())
