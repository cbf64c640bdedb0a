"""Claims: servers that share a store share its backfill, each text scored by one of them.

The fingerprints' range is divided into parts, and a server scores a part only while it has claimed
it. The system ends the claims of a process that dies, as with leases of live sources: SQLite's are
locks on bytes of a file beside the store, PostgreSQL's are locks of a session.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from feedsieve.message import StoreUnavailable
from feedsieve.serving.leases import open_session

PARTS = 64
"""Parts of the fingerprints' range. At the end of a backfill one server scores the last one."""
_TRY_LOCK = """
SELECT pg_try_advisory_lock(
    hashtextextended(concat_ws(' ', 'feedsieve backfill', current_schema(), %(part)s::text), 0)
)
"""
_UNLOCK = _TRY_LOCK.replace("pg_try_advisory_lock", "pg_advisory_unlock")


class Claims(Protocol):
    """The parts that this process has claimed."""

    def claim(self, part: int) -> bool:
        """Claim a part; return whether it is free. Raises StoreUnavailable."""

    def release(self, part: int) -> None:
        """Let other processes claim the part."""


class NoClaims:
    """For a process that has the store to itself, or needs all scores: every part is free."""

    def claim(self, part: int) -> bool:
        """Return True."""
        return True

    def release(self, part: int) -> None:
        """Do nothing."""


class _FileClaims:
    """A byte of a file for each part. Of processes, not of threads of one."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def claim(self, part: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
        except (BlockingIOError, PermissionError):  # one or the other, by system
            return False
        return True

    def release(self, part: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, part)


class _SessionClaims:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, part: int) -> bool:
        return bool(self._connection.exec_driver_sql(_TRY_LOCK, {"part": part}).scalar_one())

    def release(self, part: int) -> None:
        self._connection.exec_driver_sql(_UNLOCK, {"part": part})


@contextmanager
def open_claims(location: str, file: Path | None) -> Iterator[Claims]:
    """Yield the claims of this process on a store, and release them when the block ends.

    `file` is the store's SQLite file; without one `location` is the URL of PostgreSQL. Raises
    StoreUnavailable.
    """
    if file is None:
        with _session_claims(location) as claims:
            yield claims
        return
    path = file.with_name(f".{file.name}.backfill.lock")
    try:
        lock = path.open("w")
    except OSError as error:
        reason = f"the backfill cannot be shared: {error.strerror or type(error).__name__}"
        raise StoreUnavailable(f"{path}: {reason}", reason) from error
    with lock:
        yield _FileClaims(lock)


@contextmanager
def _session_claims(location: str) -> Iterator[Claims]:
    try:
        engine, connection = open_session(location)
        try:
            yield _SessionClaims(connection)
        finally:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # the session ends, whatever state it is in
            connection.close()
            engine.dispose()
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or type(error).__name__
        raise StoreUnavailable(f"the backfill cannot be shared: {reason}") from error


def bounds(part: int) -> tuple[str, str]:
    """Return the bounds of a part: its fingerprints are after the first and before the second.

    Fingerprints are 32 hexadecimal digits; the second is greater than all for the last part.
    """
    width = 256 // PARTS
    end = (part + 1) * width
    return f"{part * width:02x}", f"{end:02x}" if end < 256 else "g"
