"""`feedsieve db`: back up, restore and check the message store."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from sqlalchemy import URL
from tqdm import tqdm

from feedsieve.command import FAILED
from feedsieve.settings import settings
from feedsieve.store import postgres_backup, sqlite_backup
from feedsieve.store.backup import Progress, check_backup, check_target, refuse_to_replace
from feedsieve.store.check import check_store
from feedsieve.store.database import locate, without_password
from feedsieve.store.store import MessageStore

_FILE = click.Path(path_type=Path)


@click.group()
def db() -> None:
    """The message store: back up, restore, check.

    The store is that at FEEDSIEVE_DB. Servers and importers may go on meanwhile.
    """


@db.command("backup")
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE.")
def back_up(file: Path, force: bool) -> None:
    """Copy the store to FILE.

    The copy has everything that was stored when the command started. Of SQLite it is a message
    store itself; of PostgreSQL it is pg_dump's custom format. It is checked before it gets its
    name, and only you may read it: it holds messages.
    """
    check_target(file, replace=force)
    url = locate(settings().db, settings().state)
    with _progress(str(file)) as progress:
        if url.get_backend_name() == "sqlite":
            messages = sqlite_backup.back_up(Path(str(url.database)), file, progress)
        else:
            messages = postgres_backup.back_up(url, file, progress)
    size = file.stat().st_size / 1e6
    click.echo(f"{file}: {messages:,} messages, {size:,.1f} MB")


@db.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--force", is_flag=True, help="Replace a store that has messages; it is kept.")
def restore(file: Path, force: bool) -> None:
    """Make the store that of a backup.

    The backup is checked before, and migrated if an earlier version made it. The store is replaced
    in one step, and servers go on with the restored one. The replaced one is kept beside it: the
    command prints where. What was stored, labelled or deleted after the backup is undone.
    """
    check_backup(file)
    url = locate(settings().db_to_fill, settings().state, is_replaced=True)
    with _progress(str(file)) as progress:
        if url.get_backend_name() == "sqlite":
            path = Path(str(url.database))
            refuse_to_replace(path, sqlite_backup.count(path), replace=force)
            restored = sqlite_backup.restore(file, path, progress)
        else:
            restored = postgres_backup.restore(file, url, progress, replace=force)
    kept = f"; the replaced store is {restored.replaced}" if restored.replaced else ""
    click.echo(f"{_store(url)}: {restored.messages:,} messages of {file}{kept}")
    if not MessageStore.open(settings().db_to_fill).valid_keys():
        click.echo("it has no valid API key: anyone who reaches a server of it may write", err=True)


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> int:
    """Check the store, and change nothing.

    SQLite checks the file and its foreign keys. Labels without a message, scores without a model
    and messages without the facts of their texts are defects; scores of earlier texts of a message
    are not. The exit code is 1 if there is a defect.
    """
    url = locate(settings().db, settings().state)
    report = check_store(url)
    if as_json:
        click.echo(
            json.dumps({"store": _store(url), "is_sound": not report.problems, **asdict(report)})
        )
        return FAILED if report.problems else 0
    counts = [f"{count:,} {name}" for name, count in report.rows.items() if count is not None]
    click.echo(f"{_store(url)}: revision {report.revision or 'none'}, {', '.join(counts)}")
    if report.scores_of_earlier_texts:
        click.echo(f"  {report.scores_of_earlier_texts:,} scores of earlier texts of messages")
    for problem in report.problems:
        click.echo(f"  defect: {problem}")
    return FAILED if report.problems else 0


def _store(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return without_password(url.render_as_string(hide_password=False))


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show a bar of bytes or rows if the work takes longer than a second."""
    with tqdm(desc=name, unit="", unit_scale=True, delay=1, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield show
