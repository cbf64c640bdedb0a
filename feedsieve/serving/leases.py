"""Leases: one process at a time follows a live source into a store.

The system ends a lease when its process dies, however it dies: SQLite's is a lock on a file beside
the store, PostgreSQL's a lock of a session, which the server ends within a minute after the last
sign of life of the client's machine. A lease with a time in a table would have to be renewed, and
every write to the store makes the backfill look for new messages.
"""

import fcntl
import hashlib
from pathlib import Path
from typing import Protocol, TextIO

from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from feedsieve.message import StoreUnavailable

_SECONDS = {"idle": 30, "interval": 10, "count": 3}  # of TCP's signs of life
_TRY_LOCK = """
SELECT pg_try_advisory_lock(
    hashtextextended(concat_ws(' ', 'feedsieve watch', current_schema(), %(source)s::text), 0)
)
"""


class Lease(Protocol):
    """The right to follow one live source."""

    def check(self) -> None:
        """Raise StoreUnavailable if the lease was lost."""

    def release(self) -> None:
        """End the lease."""


class _FileLease:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def check(self) -> None:
        pass  # the system keeps it

    def release(self) -> None:
        self._file.close()


class _SessionLease:
    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self.connection = connection

    def check(self) -> None:
        try:
            self.connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise StoreUnavailable(f"the lease of a live source is lost: {reason}") from error

    def release(self) -> None:
        self.connection.invalidate()  # the session ends, whatever state it is in
        self.connection.close()
        self._engine.dispose()


def acquire(location: str, file: Path | None, source: str) -> Lease | None:
    """Return the lease of a source, or None if another process or thread has it.

    `file` is the store's SQLite file; without one `location` is the URL of PostgreSQL. Raises
    StoreUnavailable.
    """
    if file is None:
        return _lock_session(location, source)
    digest = hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
    return _lock_file(file.with_name(f".{file.name}.watch-{digest}.lock"))


def _lock_file(path: Path) -> Lease | None:
    try:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be locked: {error.strerror or error}") from error
    return _FileLease(file)


def open_session(location: str) -> tuple[Engine, Connection]:
    """Return a session of PostgreSQL whose locks end soon after this process or its machine.

    Raises SQLAlchemyError.
    """
    keepalives = {f"keepalives_{name}": value for name, value in _SECONDS.items()}
    engine = create_engine(
        make_url(location),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=keepalives,
    )
    connection = engine.connect()
    for name, value in _SECONDS.items():
        connection.exec_driver_sql(f"SET tcp_keepalives_{name} = {value}")
    return engine, connection


def _lock_session(location: str, source: str) -> Lease | None:
    try:
        lease = _SessionLease(*open_session(location))
        has_lock = lease.connection.exec_driver_sql(_TRY_LOCK, {"source": source}).scalar_one()
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or type(error).__name__
        raise StoreUnavailable(f"a live source cannot be leased: {reason}") from error
    if has_lock:
        return lease
    lease.release()
    return None
