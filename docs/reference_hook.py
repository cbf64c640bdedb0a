"""MkDocs hook: fill the pages of docs/reference/ with settings, errors and commands.

A page has a marker such as `<!-- settings -->` where its table goes.
"""

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import feedsieve
from feedsieve.errors import FeedsieveError
from feedsieve.settings import documented

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page; MkDocs calls this for each."""
    for marker, write in MARKERS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(write()))
    return markdown


def settings_table() -> Iterator[str]:
    """Yield a Markdown table of the fields of `Settings`."""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for variable, default, description in documented():
        shown = f"`{default}`" if default else "–"
        yield f"| `{variable}` | {shown} | {description} |"


def errors_table() -> Iterator[str]:
    """Yield a Markdown table of the exceptions that feedsieve raises."""
    for module in pkgutil.walk_packages(feedsieve.__path__, "feedsieve."):
        if module.name != "feedsieve.service":  # it needs a model
            importlib.import_module(module.name)
    yield "| error | meaning |"
    yield "|---|---|"
    errors = {error for error in _subclasses(FeedsieveError) if error.__module__ != "__main__"}
    for error in sorted(errors, key=lambda error: (error.__module__, error.__name__)):
        [summary, *_rest] = (error.__doc__ or "").strip().splitlines() or [""]
        yield f"| `{error.__module__}.{error.__name__}` | {summary} |"


def commands() -> Iterator[str]:
    """Yield a section with the help of each command."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.command_help"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the commands' help cannot be read:\n{done.stderr}")
    groups: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    for heading, helps in groups.items():
        yield f"\n## {heading}"
        for command, help in helps.items():
            title = command if command.startswith("feedsieve") else f"python -m {command}"
            yield f"\n### `{title}`\n\n```text\n{help.strip()}\n```"


def _subclasses(error: type[FeedsieveError]) -> Iterator[type[FeedsieveError]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


MARKERS: dict[str, Callable[[], Iterator[str]]] = {
    "<!-- settings -->": settings_table,
    "<!-- errors -->": errors_table,
    "<!-- commands -->": commands,
}
