"""`python -m train.behave`: does a model do what any model of these messages must?"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from feedsieve.files import open_whole
from feedsieve.models import NoModel, load_scorer
from feedsieve.settings import InvalidSettings, settings
from train.behaviour.checks import all_texts, run
from train.behaviour.requirements import REQUIREMENTS
from train.failures import in_one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a check fails, there is no model or no file to write."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        scorer = load_scorer(options.model or settings().model, settings().threads)
        with tqdm(total=len(all_texts()), desc="score", unit=" messages") as bar:
            outcome = run(scorer, REQUIREMENTS[options.requirements], bar.update)
        print(f"{scorer.model}, threshold {scorer.threshold:.3f}\n{outcome}")
        if options.out:
            table = {"model": scorer.model, **outcome.as_table()}
            text = json.dumps(table, ensure_ascii=False, indent=2)
            with open_whole(options.out) as file:
                file.write(f"{text}\n")
        return int(not outcome.passed)

    return in_one_line("behave", work, (NoModel, InvalidSettings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.behave",
        description="Test a model's behaviour on invented messages: what must not move a score,"
        " what must lower it, and what a model must know. Exits with 1 if it falls short.",
    )
    parser.add_argument(
        "--model",
        metavar="TAG",
        help="the classifier (FEEDSIEVE_MODEL, or the latest)",
    )
    parser.add_argument(
        "--requirements",
        choices=list(REQUIREMENTS),
        default="real",
        help="of a model of real messages (%(default)s) or of the sample corpus",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write the outcome")
    return parser


if __name__ == "__main__":
    sys.exit(main())
