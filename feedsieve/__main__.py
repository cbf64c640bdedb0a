"""The `feedsieve` command: import messages into the store, score files."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import click
from tqdm import tqdm

from feedsieve.bulk.score_file import ClusterUnavailable, Engine, InProcess, check_paths, score_file
from feedsieve.bulk.tables import ADDED, Columns
from feedsieve.command import run_command
from feedsieve.labels_command import labels
from feedsieve.scoring.model_store import load_scorer
from feedsieve.settings import settings
from feedsieve.sources.readers import read_messages
from feedsieve.sources.report import ReadReport
from feedsieve.store.store import MessageStore

_FILE = click.Path(path_type=Path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 if it failed, 2 for bad usage, 130 for Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command("feedsieve", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int | None:
    try:
        code: int | None = feedsieve.main(arguments, "feedsieve", standalone_mode=False)
        return code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None


@click.group()
def feedsieve() -> None:
    """Turn a noisy chat into a ranked feed.

    `bentoml serve` shows the feed. These commands import messages into its store, and score files
    without it. Settings are read from the environment: FEEDSIEVE_DB (the message store),
    FEEDSIEVE_MODEL (the classifier's tag), FEEDSIEVE_THREADS.
    """


feedsieve.add_command(labels)


@feedsieve.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_FILE)
def import_files(paths: tuple[Path, ...]) -> None:
    """Import messages into the store at FEEDSIEVE_DB.

    A PATH is an SQLite chat dump, a CSV file with columns msg_id,msg and optionally channel,time,
    or Telegram Desktop's result.json. Each file is imported completely or not at all. Importing it
    again changes nothing.
    """
    store = MessageStore.open(settings().db)
    for path in paths:
        messages = read_messages(path)
        counts = store.add(tqdm(messages, str(path), unit=" messages"))
        click.echo(
            f"{path}: {counts.added:,} new, {counts.changed:,} changed, "
            f"{counts.unchanged:,} known already, {messages.report.skipped.total():,} without text"
        )
    click.echo(f"{store.location} now has {store.count():,} messages")


@feedsieve.command()
@click.argument("source", metavar="IN", type=_FILE)
@click.argument("target", metavar="OUT", type=_FILE)
@click.option(
    "--cluster",
    metavar="WHERE",
    help="Score on a Dask cluster: local:N starts N processes on this machine, tcp://HOST:PORT is"
    " the address of a scheduler. The workers receive the model.",
)
@click.option("--column", metavar="NAME", help="The column of the texts.  [default: msg]")
@click.option(
    "--names",
    metavar="SCORE,LABEL",
    default=",".join(ADDED),
    show_default=True,
    help="Names of the new columns.",
)
@click.option("--force", is_flag=True, help="Replace OUT, and parts of another run in OUT.parts.")
def score(
    source: Path, target: Path, cluster: str | None, column: str | None, names: str, force: bool
) -> None:
    """Score the texts of a CSV or Parquet file.

    Copies IN to OUT and adds the columns score (0 to 1) and label (positive or negative) for the
    column msg, or text, message, content or body if there is no msg. Both files end in .parquet, or
    both are CSV; a CSV keeps its encoding, delimiter and line ends. An interrupted run resumes when
    it is started again; until it is complete, the folder OUT.parts holds its scores.
    """
    columns, report = Columns(column, _two_names(names)), ReadReport()
    check_paths(source, target, force)  # before a model is loaded
    with _engine(cluster) as engine, tqdm(desc=str(source), unit=" messages") as bar:
        positives, count = score_file(
            engine, source, target, bar.update, columns=columns, replace=force, report=report
        )
    for note in report.notes:
        click.echo(f"{source}: {note}")
    click.echo(f"{target}: {count:,} scored by {engine.model}, {positives:,} positive")


def _two_names(names: str) -> tuple[str, str]:
    score, _, label = (name.strip() for name in names.partition(","))
    if not score or not label or "," in label or score.casefold() == label.casefold():
        raise click.BadParameter("two names are needed, such as score,label", param_hint="--names")
    return score, label


@contextmanager
def _engine(cluster: str | None) -> Iterator[Engine]:
    """Yield the engine of this process, or that of a cluster.

    The runtime does not depend on Dask: `feedsieve[cluster]` adds the engine as an entry point.
    """
    model, cascade = settings().model, settings().cascade
    if cluster is None:
        yield InProcess(load_scorer(model, settings().threads, cascade=cascade))
        return
    try:
        connect = entry_points(group="feedsieve.engines")["cluster"].load()
    except (KeyError, ImportError) as error:
        raise ClusterUnavailable(
            f"--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from error
    with connect(cluster, model, cascade=cascade) as engine:
        yield engine


if __name__ == "__main__":
    sys.exit(main())
