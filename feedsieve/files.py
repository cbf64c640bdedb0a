"""Files that are there whole or not at all, and folders that one process uses at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = "lock"  # in a folder that one process uses at a time


class UnwritableFile(RuntimeError):
    """A file that cannot be written, or must not be replaced; says which and why."""


class RunningAlready(RuntimeError):
    """Another process is at the same work; the message says where what it keeps is."""


@contextmanager
def path_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what is written there is at `path` once the block ends.

    What is at `path` already is replaced then, and stays if the block raises. Raises OSError.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(unfinished)):  # None: a write failed
            error.filename = str(path)  # the file that the user knows of
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def open_whole(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a file to write text that is there whole, or not at all, once the block ends.

    What is at `path` already is replaced then, and stays if the block raises. Raises OSError.
    """
    with (
        path_whole(path) as unfinished,
        unfinished.open("w", encoding=encoding, newline="") as file,
    ):
        yield file


@contextmanager
def one_run_at_a_time(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if it is not there. Raises RunningAlready if another does.

    The hold ends with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunningAlready(
                f"another run is at the same work and keeps it in {folder}; let it end first"
            ) from error
        yield
