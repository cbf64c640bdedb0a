"""`feedsieve import`: messages of files, into the store."""

from pathlib import Path

import click

from feedsieve.import_files import FileImport
from feedsieve.settings import settings
from feedsieve.sources.readers import FORMATS
from feedsieve.store.store import MessageStore


@click.command("import")
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
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
