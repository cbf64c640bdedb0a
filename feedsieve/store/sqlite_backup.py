"""Backup and restore of a store in SQLite, by SQLite's backup interface.

A plain copy of the file lacks what is in the write-ahead log. And a file must not be put in the
place of one that a process has open: both would use one log. So a backup is restored into the file,
in one transaction, as any other change.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import URL

from feedsieve.errors import FeedsieveError
from feedsieve.files import UnwritableFile, sync
from feedsieve.sources.chats import sqlite_dump
from feedsieve.store.backup import BackupFailed, Progress, Restored, time_of_replacement
from feedsieve.store.database import LOCK_SECONDS, check_revision, open_database
from feedsieve.store.schema import REVISION, messages, revisions

_PAGES = 1000  # copied in one step
_LOGS = ("-wal", "-shm", "-journal")  # files that SQLite keeps beside a database
_COUNT = f"SELECT count(*) FROM {messages.name}"


def back_up(path: Path, target: Path, progress: Progress) -> int:
    """Copy the store in the file `path` to `target`, for its owner only; return its messages.

    The copy is one file, without a write-ahead log. Raises BackupFailed, UnwritableFile, OSError.
    """
    if not path.exists():
        raise BackupFailed(f"{path}: there is no message store to back up")
    if target.resolve() in _files(path.resolve()):
        raise UnwritableFile(f"{target} is the message store itself; name another file")
    with _naming(target), _folder_beside(target) as folder:
        copy = folder / target.name
        with closing(_open(path)) as source:
            source.execute("BEGIN")  # writers may go on, without any effect on the copy
            [expected] = source.execute(_COUNT).fetchone()
            _copy(source, copy, progress)
        found = _check(copy)
        if found < expected:
            raise BackupFailed(f"the copy has {found:,} of {expected:,} messages; try again")
        copy.chmod(0o600)
        _publish(copy, target)
        return found


def restore(file: Path, path: Path, progress: Progress) -> Restored:
    """Make the store in the file `path` that of a backup.

    Processes that have the store open go on with the restored one. The replaced one is copied to a
    file beside it. Raises BackupFailed, UnwritableFile and OSError.
    """
    if file.resolve() in _files(path.resolve()):
        raise UnwritableFile(f"{file} is the message store itself; name a backup")
    with _naming(file):
        revision = _check_kind(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _folder_beside(path) as folder:
        ready = folder / path.name
        with _naming(file):
            with sqlite_dump.open_read_only(file) as source:
                _copy(source, ready, progress)
            _check(ready)
            if revision != REVISION:
                _migrate(ready)
            found = _check(ready)
        with _naming(path):
            kept = _put_in_place(ready, path, progress)
    return Restored(found, str(kept) if kept else None)


def count(path: Path) -> int | None:
    """Return the number of messages in a file: 0 if there is no store, None if it is damaged."""
    if not path.exists() or not path.stat().st_size:
        return 0
    try:
        with closing(_open(path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                return 0
            [found] = connection.execute(_COUNT).fetchone()
            return int(found)
    except sqlite3.Error:
        return None


def _check_kind(file: Path) -> str | None:
    """Return the revision of a backup; raise BackupFailed if it cannot be restored."""
    if not sqlite_dump.is_sqlite(file):
        raise BackupFailed("not a backup of a store in SQLite")
    with sqlite_dump.open_read_only(file) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in names}
        if messages.name not in tables:
            raise BackupFailed("not a message store; `feedsieve import` reads other files")
        if revisions.name not in tables:
            return None
        row = connection.execute(f"SELECT version_num FROM {revisions.name}").fetchone()
    found = row and str(row[0])
    check_revision(found)
    return found


def _check(path: Path) -> int:
    """Return the number of messages in a file. Raises BackupFailed if it is damaged."""
    with closing(_open(path)) as connection:
        [first] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if first != "ok":
            raise BackupFailed(f"it is damaged: {' '.join(first.split())}")
        [found] = connection.execute(_COUNT).fetchone()
        return int(found)


def _migrate(path: Path) -> None:
    """Bring the tables of a file to this version's, and keep it in one file."""
    open_database(URL.create("sqlite", database=str(path)), back_up=False).dispose()
    with closing(_open(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _put_in_place(ready: Path, path: Path, progress: Progress) -> Path | None:
    """Give the store at `path` the content of the file `ready`; return a copy of the old one."""
    if not path.exists():
        _replace(ready, path, None)
        return None
    kept = path.with_name(f"{path.name}.replaced-{time_of_replacement()}")
    try:
        _write_into(path, ready, kept, progress)
    except sqlite3.OperationalError:  # locked, full or read-only
        raise
    except sqlite3.DatabaseError:  # so damaged that SQLite does not open it
        kept.unlink(missing_ok=True)
        _replace(ready, path, kept)
    return kept


def _write_into(path: Path, ready: Path, kept: Path, progress: Progress) -> None:
    """Overwrite the store with the content of `ready` in one transaction, and copy it before."""
    deadline = time.monotonic() + LOCK_SECONDS
    with closing(_open(path)) as live, closing(_open(ready)) as source:
        live.execute("PRAGMA journal_mode = WAL")
        size = _pragma(live, "page_size")
        if _pragma(source, "page_size") != size:
            source.execute(f"PRAGMA page_size = {size}")
            source.execute("VACUUM")

        def step(status: int, remaining: int, total: int) -> None:
            if status not in (sqlite3.SQLITE_OK, sqlite3.SQLITE_DONE):
                if time.monotonic() > deadline:
                    raise BackupFailed("another process is writing to it; try again")
                return
            if not kept.exists():  # from now on no other process can write
                _keep(path, kept)
            progress((total - remaining) * size, total * size)

        # The last step commits, so there must be one before.
        pages = max(1, min(_PAGES, _pragma(source, "page_count") // 2))
        source.backup(live, pages=pages, progress=step, sleep=0.1)
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _keep(path: Path, kept: Path) -> None:
    with _folder_beside(kept) as folder, closing(_open(path)) as old:
        copy = folder / kept.name
        _copy(old, copy, lambda _done, _all: None)
        shutil.copymode(path, copy)
        _publish(copy, kept)


def _replace(ready: Path, path: Path, kept: Path | None) -> None:
    """Put the file `ready` in the place of a damaged one, which becomes `kept`, or of none."""
    for log in _files(path)[1:]:  # SQLite would read it as that of the new file
        if log.exists() and kept:
            log.rename(kept.with_name(kept.name + log.name.removeprefix(path.name)))
        log.unlink(missing_ok=True)
    if kept:
        os.link(path, kept)
        shutil.copymode(path, ready)
        if os.getuid() == 0:
            os.chown(ready, path.stat().st_uid, path.stat().st_gid)
    _publish(ready, path)


def _copy(source: sqlite3.Connection, target: Path, progress: Progress) -> None:
    """Copy a database into a new file, beside which no log is left."""
    size = _pragma(source, "page_size")

    def step(_status: int, remaining: int, total: int) -> None:
        progress((total - remaining) * size, total * size)

    with closing(_open(target, "rwc")) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # the file is synchronised as a whole
        source.backup(copy, pages=_PAGES, progress=step)
        copy.execute("PRAGMA journal_mode = DELETE")


def _publish(file: Path, path: Path) -> None:
    """Give a complete file its name; both survive a power cut."""
    sync(file)
    file.replace(path)
    sync(path.parent)


def _open(path: Path, mode: str = "rw") -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, isolation_level=None)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _files(path: Path) -> list[Path]:
    """Return a database's file and those that SQLite keeps beside it."""
    return [path, *(path.with_name(path.name + suffix) for suffix in _LOGS)]


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Yield a folder for an unfinished file and all that SQLite keeps beside it."""
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the name of a file before errors about it."""
    try:
        yield
    except UnwritableFile:
        raise
    except (sqlite3.Error, FeedsieveError) as error:
        raise BackupFailed(f"{path}: {error}") from error
