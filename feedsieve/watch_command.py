"""`feedsieve watch`: messages of live sources, into the store."""

import logging

import click

from feedsieve.command import FAILED
from feedsieve.logs import OneLine
from feedsieve.serving.watch_runs import watch_sources
from feedsieve.settings import settings

_ONE_LINE = OneLine()  # titles of chats and answers of servers may hold anything


@click.command()
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
