"""Atomic file writes, and a lock on a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from feedsieve.errors import FeedsieveError

LOCK = "lock"  # name of the lock file in a folder


class UnwritableFile(FeedsieveError):
    """A file that cannot be written or must not be replaced. The message has the reason."""


class AlreadyRunning(FeedsieveError):
    """Another process holds the lock on the folder that the message names."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends.

    If the block raises, `path` stays as it was. Raises OSError.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(unfinished)):  # None: a write failed
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomically(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a temporary text file that replaces `path` when the block ends.

    If the block raises, `path` stays as it was. Raises OSError.
    """
    with (
        atomic_path(path) as unfinished,
        unfinished.open("w", encoding=encoding, newline="") as file,
    ):
        yield file


@contextmanager
def one_run_at_a_time(folder: Path) -> Iterator[None]:
    """Lock `folder`, created if absent. Raises AlreadyRunning if another process holds the lock.

    The lock is released when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"another run is using {folder}; wait until it ends") from error
        yield
