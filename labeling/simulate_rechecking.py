"""`python -m labeling.simulate_rechecking`: how many wrong labels rounds of train.audit find.

Adjudicated labels stand in for the person who checks them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from tqdm import tqdm

from export import sources
from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError
from train.classifier import stacking
from train.classifier.boosting import Fitted
from train.cli.arguments import add_encoder, positive
from train.data.dataset import Dataset
from train.data.validation import ADJUDICATED, GROUND_TRUTH
from train.encoder.frozen import frozen_embedder
from train.evaluation.label_audit import SCORE, audit
from train.evaluation.metrics import evaluate
from train.evaluation.slices import precision_at
from train.report.doc_page import plot, write_section

ROUNDS, ONCE = "train.audit, trained again each round", "train.audit, once"
CONTRADICTED = "labels that the score contradicts, once"
RANDOM = "at random"
FIRST = 100  # messages of the feed
MARK = "recheck"  # of the table in labelling.md


class NoAdjudicatedLabels(FeedsieveError):
    """Labelled messages without the column that stands in for a person."""


@dataclass(frozen=True)
class Step:
    """A model, and the labels that were checked before it was trained."""

    checked: int
    found: int  # wrong ones among them
    expected: float  # wrong ones among the next batch, as the audit estimates
    f1: float  # of the test part, by adjudicated labels, and so are these
    average_precision: float
    first: float  # share of positives among the first `FIRST`


@dataclass(frozen=True)
class Simulation:
    """Rounds of checking, and what other orders find with as many labels."""

    steps: Sequence[Step]
    curves: dict[str, list[int]]  # wrong labels found, by way and step
    wrong: int  # labels of the training part
    labels: int


def simulate(
    data: Dataset,
    embeddings: np.ndarray | None,
    test_embeddings: np.ndarray | None,
    batch: int,
    rounds: int,
    seed: int,
) -> Simulation:
    """Check `batch` labels in each round, with the model trained again before each.

    `embeddings` are those of the training part and of the test part, (messages, dimension), of a
    frozen encoder; without them the word model is alone.
    """
    frame = data.parts.train.assign(**{GROUND_TRUTH: False})
    truth = frame[ADJUDICATED].to_numpy()
    before = frame["label"].to_numpy(copy=True)
    steps, ranked, contradicted = [], np.empty(0, np.int64), np.empty(0, np.int64)
    for number in tqdm(range(rounds + 1), "recheck", unit=" rounds"):
        labels = frame["label"].to_numpy()
        checked = frame[GROUND_TRUTH].to_numpy(bool)
        features, fitted = stacking.fit(
            data.texts, labels, data.groups, embeddings, None, seed, checked=checked
        )
        found = audit(frame, {SCORE: fitted.held_out, **fitted.views}, data.groups)
        if not number:
            ranked = found.table.index.to_numpy()
            contradicted = _contradicted(before, fitted.held_out)
        chosen = found.table.index[:batch]
        columns = features.columns(
            data.test_texts,
            np.empty((len(data.test_texts), 0)) if test_embeddings is None else test_embeddings,
        )
        steps.append(
            _step(
                data,
                fitted,
                columns,
                int(checked.sum()),
                int((labels != before).sum()),
                float(found.table["wrong"].iloc[:batch].sum()),
            )
        )
        frame.loc[chosen, "label"] = truth[chosen]
        frame.loc[chosen, GROUND_TRUTH] = True
    wrong = before != truth
    sizes = [step.checked for step in steps]
    return Simulation(
        steps,
        {
            ROUNDS: [step.found for step in steps],
            ONCE: [int(wrong[ranked[:size]].sum()) for size in sizes],
            CONTRADICTED: [int(wrong[contradicted[:size]].sum()) for size in sizes],
            RANDOM: [round(size * wrong.mean()) for size in sizes],
        },
        int(wrong.sum()),
        len(wrong),
    )


def _contradicted(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the rows that confident learning lists, the least credible first."""
    rows: np.ndarray = find_label_issues(
        labels,
        np.column_stack([1 - scores, scores]),
        return_indices_ranked_by="self_confidence",
        filter_by="confident_learning",
        n_jobs=1,
    )
    return rows


def _step(
    data: Dataset, fitted: Fitted, columns: np.ndarray, checked: int, found: int, expected: float
) -> Step:
    truth = data.parts.test[ADJUDICATED].to_numpy()
    scores = fitted.calibration.apply(fitted.start.boosted(fitted.booster, columns))
    figures = evaluate(truth, scores, fitted.threshold)
    first = precision_at(truth, scores, min(FIRST, len(truth)))
    return Step(checked, found, expected, figures["f1"], figures["average_precision"], first)


def table(simulation: Simulation) -> str:
    """Return the figures as Markdown."""
    head = ["labels checked", *(f"{step.checked:,}" for step in simulation.steps)]
    rows = [
        *([way, *map(str, found)] for way, found in simulation.curves.items()),
        ["expected in the next round", *(f"{step.expected:.0f}" for step in simulation.steps)],
        ["F1, test part", *(f"{step.f1:.3f}" for step in simulation.steps)],
        ["average precision", *(f"{step.average_precision:.3f}" for step in simulation.steps)],
        [f"first {FIRST} of the feed", *(f"{step.first:.2f}" for step in simulation.steps)],
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        [
            f"Wrong labels found, of {simulation.wrong:,} among {simulation.labels:,}, and figures"
            " of the model that is trained then, all by adjudicated labels.",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
        ]
    )


def draw(simulation: Simulation, path: Path) -> None:
    """Write the curves as SVG. Raises OSError."""
    sizes = [step.checked for step in simulation.steps]
    with plot(path, xlabel="labels checked", ylabel="wrong labels found") as axes:
        for way, found in simulation.curves.items():
            axes.plot(sizes, found, marker="o", markersize=4, label=way)
        axes.axhline(simulation.wrong, color="grey", linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", frameon=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("labeling.simulate_rechecking", lambda: _run(options), options.data)


def _run(options: argparse.Namespace) -> None:
    data = Dataset.read(options.data)
    if ADJUDICATED not in data.frame:
        raise NoAdjudicatedLabels(
            f"{options.data} has no column {ADJUDICATED}, whose labels stand in for a person"
        )
    texts = data.texts + data.test_texts
    source = sources.load(options.encoder)
    with frozen_embedder(source, texts) as embedder:
        embeddings = embedder.embed(texts, "embed")
    size = len(data.texts)
    simulation = simulate(
        data, embeddings[:size], embeddings[size:], options.batch, options.rounds, options.seed
    )
    text = table(simulation)
    page, curve = options.out / "labelling.md", options.out / "images" / "recheck-curve.svg"
    draw(simulation, curve)
    write_section(page, MARK, text)
    print(f"{text}\nsee {page} and {curve}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.simulate_rechecking",
        description="Plot how many wrong labels are found by checking those that train.audit lists"
        " first, round by round, and what models that are trained afterwards gain. Adjudicated"
        " labels stand in for the person.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="LABELED.csv",
        help="msg_id,msg,label,adjudicated and optionally subset",
    )
    add_encoder(parser)
    parser.add_argument(
        "--batch", type=positive, default=50, help="labels in a round (%(default)s)"
    )
    parser.add_argument("--rounds", type=positive, default=8, help="number of rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of folds and models (%(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="folder of labelling.md and images/recheck-curve.svg (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
