"""The command `feedsieve`: bring messages into the store, and score files."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from tqdm import tqdm

from feedsieve.bulk import Engine, InProcess, NoEngine, check_paths, score_file
from feedsieve.files import RunningAlready, UnwritableFile
from feedsieve.message import StoreUnavailable, UnreadableFile
from feedsieve.models import NoModel, load_scorer
from feedsieve.readers import read_messages
from feedsieve.settings import InvalidSettings, settings
from feedsieve.store import MessageStore


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 after saying on stderr what failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except (
        NoModel, NoEngine, StoreUnavailable, UnreadableFile, UnwritableFile, RunningAlready,
        InvalidSettings,
    ) as error:  # fmt: skip
        print(f"feedsieve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("feedsieve: interrupted", file=sys.stderr)
        return 130
    return 0


def import_files(options: argparse.Namespace) -> None:
    """Bring every file's messages into the store, each file whole or not at all."""
    store = MessageStore.open(settings().db)
    for path in options.paths:
        messages = read_messages(path)
        counts = store.add(tqdm(messages, str(path), unit=" messages"))
        print(
            f"{path}: {counts.added:,} new, {counts.changed:,} changed, "
            f"{counts.unchanged:,} known already, {messages.skipped:,} without text"
        )
    print(f"{store.location} now has {store.count():,} messages")


def score(options: argparse.Namespace) -> None:
    """Score the texts of a file into another one."""
    check_paths(options.source, options.target, options.force)  # before a model is loaded
    with (
        _engine(options.cluster) as engine,
        tqdm(desc=str(options.source), unit=" messages") as bar,
    ):
        positives, count = score_file(
            engine, options.source, options.target, bar.update, replace=options.force
        )
    print(f"{options.target}: {count:,} scored by {engine.model}, {positives:,} positive")


@contextmanager
def _engine(cluster: str | None) -> Iterator[Engine]:
    """Yield what scores: this process, or the cluster that whoever has installed it brings along.

    What serves knows of no cluster: `feedsieve[cluster]` announces one as an entry point.
    """
    if cluster is None:
        yield InProcess(
            load_scorer(settings().model, settings().threads, cascade=settings().cascade)
        )
        return
    try:
        connect = entry_points(group="feedsieve.engines")["cluster"].load()
    except (KeyError, ImportError) as error:
        raise NoEngine(
            f"--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from error
    with connect(cluster, settings().model, cascade=settings().cascade) as engine:
        yield engine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedsieve",
        description="Turns a noisy chat into a ranked feed. `bentoml serve` shows it; these"
        " commands bring messages into its store, and score files without it.",
        epilog="Settings come from the environment: FEEDSIEVE_DB (the message store),"
        " FEEDSIEVE_MODEL (the classifier's tag), FEEDSIEVE_THREADS.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    importing = commands.add_parser(
        "import",
        help="bring messages into the store",
        description="Bring messages into the store at FEEDSIEVE_DB. A file may be an SQLite chat"
        " dump, CSV with msg_id,msg (and perhaps channel,time), or Telegram Desktop's"
        " result.json. Importing a file again changes nothing.",
    )
    importing.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    importing.set_defaults(run=import_files)
    scoring = commands.add_parser(
        "score",
        help="score the texts of a CSV or Parquet file",
        description="Copy a CSV or Parquet file and add the columns score (0 to 1) and label"
        " (positive or negative) by its column msg. A run that was ended goes on where it was when"
        " it is started again; until it is done, what it has scored is in the folder OUT.parts.",
    )
    scoring.add_argument("source", type=Path, metavar="IN", help="ends in .parquet, or is CSV")
    scoring.add_argument("target", type=Path, metavar="OUT", help="of the same format")
    scoring.add_argument(
        "--cluster",
        metavar="WHERE",
        help="score on a Dask cluster: local:N starts N processes here, tcp://HOST:PORT is a"
        " scheduler's; its workers are sent the model",
    )
    scoring.add_argument(
        "--force",
        action="store_true",
        help="replace OUT if it is there, and what OUT.parts holds of another run",
    )
    scoring.set_defaults(run=score)
    return parser


if __name__ == "__main__":
    sys.exit(main())
