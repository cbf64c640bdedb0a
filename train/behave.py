"""`python -m train.behave`: test a model's behaviour on invented messages."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from feedsieve.command import run_command
from feedsieve.files import open_atomically
from feedsieve.scoring.model_store import load_scorer
from feedsieve.settings import settings
from train.behaviour.checks import run
from train.behaviour.suite import suite_argument


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 1 if a check fails."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        scorer = load_scorer(options.model or settings().model, settings().threads)
        with tqdm(total=len(options.suite.texts), desc="score", unit=" messages") as bar:
            outcome = run(scorer, options.suite, bar.update)
        print(f"{scorer.model}, threshold {scorer.threshold:.3f}\n{outcome}")
        if options.out:
            table = {"model": scorer.model, **outcome.as_table()}
            text = json.dumps(table, ensure_ascii=False, indent=2)
            with open_atomically(options.out) as file:
                file.write(f"{text}\n")
        return int(not outcome.passed)

    return run_command("behave", work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.behave",
        description="Test a model's behaviour on invented messages: changes that must not move a"
        " score, changes that must lower it, and messages that it must classify correctly. Exits"
        " with 1 if a check fails.",
    )
    parser.add_argument(
        "--model",
        metavar="TAG",
        help="the classifier (default: FEEDSIEVE_MODEL, or the latest)",
    )
    parser.add_argument(
        "--suite",
        type=suite_argument,
        required=True,
        metavar="FILE.toml",
        help="messages and required behaviour; `flats` is the example in train/behaviour/, `sample`"
        " the same for a model of the sample corpus",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the outcome there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
