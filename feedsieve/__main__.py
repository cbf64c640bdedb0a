"""The `feedsieve` command: serve, import messages, follow live sources, score files."""

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
from feedsieve.command import FAILED, run_command
from feedsieve.db_command import db
from feedsieve.deploy_command import deploy
from feedsieve.import_files import FileImport
from feedsieve.keys_command import keys
from feedsieve.labels_command import labels
from feedsieve.logs import OneLine
from feedsieve.scoring.model_store import load_scorer
from feedsieve.serve_command import serve
from feedsieve.serving.watch_runs import watch_sources
from feedsieve.settings import settings
from feedsieve.sources.readers import FORMATS
from feedsieve.sources.report import ReadReport
from feedsieve.store.store import MessageStore

_FILE = click.Path(path_type=Path)
_ONE_LINE = OneLine()  # titles of chats and answers of servers may hold anything


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

    `serve` shows the feed. The other commands bring messages into its store, and score files
    without it. Settings are read from the environment: FEEDSIEVE_DB (the message store),
    FEEDSIEVE_MODEL (the classifier's tag), FEEDSIEVE_THREADS.
    """


feedsieve.add_command(keys)
feedsieve.add_command(db)
feedsieve.add_command(labels)
feedsieve.add_command(deploy)
feedsieve.add_command(serve)


@feedsieve.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--source",
    metavar="NAME",
    help="Name the source of messages whose file does not name it. Otherwise that is their channel"
    " or the file's name.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(sorted(FORMATS)),
    help="Read the files as this format, whatever they look like.",
)
@click.option(
    "--update",
    is_flag=True,
    help="The files have newer texts of messages of the same source. Without it, a file that would"
    " replace most texts of a source that is known by a name only is refused.",
)
@click.option("--dry-run", is_flag=True, help="Read the files and store nothing.")
def import_files(
    paths: tuple[Path, ...], source: str | None, form: str | None, update: bool, dry_run: bool
) -> int:
    """Import messages into the store at FEEDSIEVE_DB.

    A PATH is an export of Telegram Desktop (result.json), Discord, Slack or WhatsApp, a JSON list
    or JSON Lines of messages, an SQLite database, or a CSV file with columns msg_id,msg and
    optionally channel,time. Each file is imported completely or not at all. Importing it again
    changes nothing. The exit code is 1 if a file cannot be read or has no messages; the others are
    imported all the same.
    """
    store = None if dry_run else MessageStore.open(settings().db_to_fill)
    if store and settings().db != settings().db_to_fill:
        click.echo(
            f"{settings().db_to_fill} is your own data: commands run on it from now on, no longer"
            " on the sample; a running server does after a restart"
        )
    importer = FileImport(store, source, FORMATS[form] if form else None, is_update=update)
    return importer.run(paths)


@feedsieve.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Go over each source once and end, for cron.")
def watch(sources: tuple[str, ...], once: bool) -> int:
    """Follow live sources into the store at FEEDSIEVE_DB.

    A SOURCE is telegram: (a bot, whose token is in FEEDSIEVE_TELEGRAM_TOKEN or in the file
    FEEDSIEVE_TELEGRAM_TOKEN_FILE), a folder of files that `import` reads, or the URL of an RSS or
    Atom feed. Each is followed from where it stopped. A source that fails is tried again; the
    command ends with exit code 1 when none is left, or with --once if any failed.
    """
    logging.getLogger("feedsieve").addFilter(_ONE_LINE)
    return 0 if watch_sources(sources, settings(), once=once) else FAILED


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
