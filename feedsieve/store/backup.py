"""Backups of message stores: shared by SQLite and PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feedsieve.errors import FeedsieveError
from feedsieve.files import UnwritableFile

Progress = Callable[[int, int], object]
"""Called with the number of bytes done so far, and of all; 0 if that is not known."""


class BackupFailed(FeedsieveError):
    """A backup that cannot be made or restored. The message names the file and the reason."""


@dataclass(frozen=True)
class Restored:
    """The outcome of a restore: the messages, and the file or schema of the replaced store."""

    messages: int
    replaced: str | None


def check_target(target: Path, *, replace: bool) -> None:
    """Raise UnwritableFile if a backup cannot become the file `target`, or must not replace it."""
    if target.is_dir():
        raise UnwritableFile(f"{target}: a folder, not a file")
    if not target.parent.is_dir():
        raise UnwritableFile(f"{target}: there is no folder {target.parent}")
    if target.exists() and not replace:
        raise UnwritableFile(f"{target} exists; --force replaces it")


def check_backup(file: Path) -> None:
    """Raise BackupFailed if a backup cannot be read."""
    if not file.is_file():
        raise BackupFailed(f"{file}: {'a folder, not a file' if file.is_dir() else 'no such file'}")


def refuse_to_replace(store: object, messages: int | None, *, replace: bool) -> None:
    """Raise BackupFailed if a store has messages, or None if it is damaged, unless `replace`."""
    if messages == 0 or replace:
        return
    found = "cannot be read" if messages is None else f"has {messages:,} messages"
    raise BackupFailed(f"the store {store} {found}; --force replaces it, and keeps it")


def time_of_replacement() -> str:
    """Return the time, in UTC, for the name of a replaced store."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
