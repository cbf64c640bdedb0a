"""`python -m train.compare`: cross-validate every way to score these messages."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from export.names import public_name
from feedsieve.command import run_command
from feedsieve.files import open_atomically
from feedsieve.settings import settings
from train.cli.arguments import add_distil, add_encoder, add_no_track
from train.encoder.layer_choice import DEFAULT_LAYERS

DEFAULT_OUT = Path("docs/quality.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.distil and options.no_finetune:
        parser.error("--distil makes a fine-tuned encoder: leave out --no-finetune")
    return run_command("train.compare", lambda: _compare(options), options.data)


def _compare(options: argparse.Namespace) -> None:
    # Imported here: PyTorch and the others take ten seconds, and --help needs none of them.
    from export import sources
    from train.data.labelled import read_labeled
    from train.data.split import data_fingerprint
    from train.evaluation.cross_validation import FOLDS, cross_validate
    from train.report import quality
    from train.tracking import mlflow_run

    frame, source = read_labeled(options.data), sources.load(options.encoder)
    parameters = {
        "data.fingerprint": data_fingerprint(frame),
        "encoder": public_name(options.encoder),
        "finetune": not options.no_finetune,
        "distil": options.distil or f"{DEFAULT_LAYERS} at most",
        "folds": options.folds or FOLDS,
        "test": not options.no_test,
        "seed": options.seed,
    }
    with mlflow_run.run("compare", parameters) if options.track else nullcontext() as run:
        results = cross_validate(
            frame,
            source,
            options.seed,
            settings().cache,
            finetune=not options.no_finetune,
            test=not options.no_test,
            student_layers=options.distil,
            count=options.folds or FOLDS,
        )
        page = quality.page(results, _command(options))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(options.out) as file:
            file.write(page)
        print(page)
        if run:
            with run.recording():
                run.log(metrics=quality.means(results))
                run.log_files(options.out)


def _command(options: argparse.Namespace) -> str:
    """Return the command line that repeats this run, without private paths."""
    words = ["python -m train.compare --data", options.data.name]
    words += ["--encoder", public_name(options.encoder), "--seed", str(options.seed)]
    words += ["--distil", options.distil] if options.distil else []
    words += ["--folds", str(options.folds)] if options.folds else []
    words += ["--no-finetune"] if options.no_finetune else []
    words += ["--no-test"] if options.no_test else []
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.compare",
        description="Compare ways to score messages by grouped, stratified cross-validation, and"
        " write a page of figures. Fine-tuning takes hours, one or more trainings per fold; an"
        " interrupted run resumes.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="as of python -m train"
    )
    add_encoder(parser)
    add_distil(parser, "layers of the smaller fine-tuned encoder")
    parser.add_argument(
        "--no-finetune",
        action="store_true",
        help="leave out fine-tuned encoders: minutes instead of hours",
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        metavar="N",
        help="number of folds, 2 or more (5); each takes as long as two trainings, or"
        " as one with --distil all",
    )
    parser.add_argument(
        "--no-test", action="store_true", help="leave out the test part, as while choosing a model"
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FILE", help="the page (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of folds and models (%(default)s)")
    add_no_track(parser)
    return parser


def _folds(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 2:
        raise argparse.ArgumentTypeError(f"must be a number, 2 or more, not {value!r}")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
