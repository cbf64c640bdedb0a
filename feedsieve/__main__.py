"""The `feedsieve` command: serve, import messages, follow live sources, score files."""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from feedsieve import __version__
from feedsieve.command import run_command

# The module and the name of each command. Only the one that runs is imported: all of them take two
# seconds.
_COMMANDS = {
    "db": ("feedsieve.db_command", "db"),
    "deploy": ("feedsieve.deploy_command", "deploy"),
    "import": ("feedsieve.import_command", "import_files"),
    "keys": ("feedsieve.keys_command", "keys"),
    "labels": ("feedsieve.labels_command", "labels"),
    "score": ("feedsieve.score_command", "score"),
    "serve": ("feedsieve.serve_command", "serve"),
    "watch": ("feedsieve.watch_command", "watch"),
}


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


class _Commands(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, message="%(prog)s %(version)s")
def feedsieve() -> None:
    """Turn a noisy chat into a ranked feed.

    `serve` shows the feed. The other commands bring messages into its store, and score files
    without it. Settings are read from the environment: FEEDSIEVE_DB (the message store),
    FEEDSIEVE_MODEL (the classifier's tag), FEEDSIEVE_THREADS.
    """


if __name__ == "__main__":
    sys.exit(main())
