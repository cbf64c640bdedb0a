"""`python -m data.choose`: say what data commands run on, and make the sample if there is none."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data import generate
from feedsieve.command import run_command
from feedsieve.settings import OWN_LABELS, SAMPLE_FOLDER, settings
from train.data.chosen import chosen

_NOT_DATA = {"sample", "batch.csv", "scored_corpus.csv", "guideline.md", "README.md"}
_NOT_DATA |= {"phrases.toml", "__pycache__"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data.choose",
        description="Print what the commands run on: your own data as soon as there is some in"
        " data/ or FEEDSIEVE_DB is set, else the sample chat, which is made if there is none.",
    )
    printing = parser.add_mutually_exclusive_group()
    printing.add_argument("--db", action="store_true", help="print the message store alone")
    printing.add_argument("--quiet", action="store_true", help="print only what is made")
    options = parser.parse_args(arguments)
    return run_command("data.choose", lambda: _choose(options))


def _choose(options: argparse.Namespace) -> int:
    if options.db:
        print(settings().db)
        return 0
    files = [SAMPLE_FOLDER / name for name in (generate.DATABASE, generate.LABELED)]
    is_made = settings().has_own_data or all(file.exists() for file in files)
    if options.quiet and is_made:
        return 0
    if settings().has_own_data:
        print(f"on {chosen()}")
        return 0
    print(f"on the sample chat in {SAMPLE_FOLDER}/, until there are messages of yours in data/")
    if others := _others(OWN_LABELS.parent):
        print(
            f"not read: {', '.join(others)}; `feedsieve import` brings messages in, and"
            " FEEDSIEVE_DB names a message store"
        )
    return 0 if is_made else generate.main([])


def _others(folder: Path) -> list[str]:
    """Return files that somebody has put into the folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        str(path)
        for path in found
        if path.name not in _NOT_DATA and path.suffix != ".py" and not path.name.startswith(".")
    ]


if __name__ == "__main__":
    sys.exit(main())
