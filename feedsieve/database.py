"""Where the store's database is, and how it is opened: SQLite with its settings, or PostgreSQL."""

import hashlib
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError

from feedsieve import dump
from feedsieve.curation import describe_stored
from feedsieve.message import StoreUnavailable
from feedsieve.schema import metadata
from feedsieve.settings import settings

_log = logging.getLogger("feedsieve")

LOCK_SECONDS = 60.0
"""How long a writer waits for another one, a whole import say, before it gives up."""

READER_LOCK_SECONDS = 10.0
"""How long a reader in PostgreSQL waits for one who has locked a whole table before it gives up."""

_ADVISORY_LOCK = int.from_bytes(b"feedsiev")  # the key of the lock that PostgreSQL's writers take


def find_database(location: str | Path, state_folder: Path | None) -> tuple[URL, Path | None]:
    """Return the database to open for a path or URL, and the chat dump to import into it, if any.

    A dump that may not be written is left alone: its store is a file in `state_folder`.
    Raises StoreUnavailable, and OSError, sqlite3.Error or SQLAlchemyError where those arise.
    """
    if isinstance(location, str) and "://" in location:
        url = _parse(location)
        if url.get_backend_name() == "postgresql":
            if url.drivername not in ("postgresql", "postgresql+psycopg"):
                raise StoreUnavailable("PostgreSQL is read by psycopg 3 only: write postgresql://")
            return url, None
        if url.get_backend_name() != "sqlite":
            raise StoreUnavailable("neither an SQLite file nor a PostgreSQL database")
        if url.database in (None, "", ":memory:") or "uri" in url.query:
            raise StoreUnavailable("a store in memory cannot be shared by threads; name a file")
        location = Path(str(url.database))
    else:
        url = URL.create("sqlite")
    path = Path(location).expanduser().resolve()
    is_dump = _is_dump(path)
    if path.exists() and not dump.may_be_written(path):
        if not is_dump:
            raise StoreUnavailable("it may not be written, and it is not a chat dump to read")
        own = _store_elsewhere(path, state_folder)
        _log.warning("%s may not be written; its messages and their scores go to %s", path, own)
    else:
        own = path
    own.parent.mkdir(parents=True, exist_ok=True)
    return url.set(database=str(own)), path if is_dump else None


def open_database(url: URL) -> Engine:
    """Return an engine whose write transactions, `writes=True`, come one after the other.

    What a transaction reads is of one moment, but for one that writes in PostgreSQL, which sees
    what those before it have written. The tables are made where they are missing. Raises
    StoreUnavailable, sqlite3.Error and SQLAlchemyError.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": LOCK_SECONDS},
            pool_size=16,
            max_overflow=-1,
            pool_use_lifo=True,  # in turns, each connection would come to keep what all have read
        )
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    else:
        engine = _connect_to_postgresql(url)
    _make_tables(engine)  # first: another program's database is left as it is
    if engine.dialect.name == "sqlite":
        _use_write_ahead_log(engine)
    return engine


def shown(location: str | Path) -> str:
    """Return a path or URL as a message may show it: without its password."""
    if "://" not in str(location):
        return str(location)
    try:
        url = _parse(str(location))
    except StoreUnavailable:
        return "at the URL given"
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    return url.update_query_dict(hidden).render_as_string()


def _parse(location: str) -> URL:
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):  # whose words may have a part of the password in them
        raise StoreUnavailable("not an SQLAlchemy URL") from None
    if "@" in (url.host or ""):
        raise StoreUnavailable("an @ in a URL's user or password must be written %40")
    return url


def _connect_to_postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={"client_encoding": "utf8"},  # a database in SQL_ASCII would give bytes
        )
    except ImportError as error:
        raise StoreUnavailable(
            "PostgreSQL's driver is missing: pip install -c constraints.txt -e '.[postgres]'"
            f" ({error})"
        ) from error
    event.listen(engine, "connect", _wait_for_locks)
    event.listen(engine, "begin", _wait_for_writers)
    return engine


def _wait_for_locks(connection: Any, _record: Any) -> None:
    """Let no transaction wait for ever, as whoever reads would while a table is rewritten."""
    connection.autocommit = True  # or it would be forgotten with the transaction that it is said in
    connection.execute(f"SET lock_timeout = {round(READER_LOCK_SECONDS * 1000)}")
    connection.autocommit = False


def _wait_for_writers(connection: Connection) -> None:
    """Let a transaction that writes be the only one, and see what those before it have written."""
    if connection.get_execution_options().get("writes", False):
        for statement in (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            f"SET LOCAL lock_timeout = {round(LOCK_SECONDS * 1000)}",
            f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})",
        ):
            connection.exec_driver_sql(statement)


def _is_dump(path: Path) -> bool:
    if path.is_dir():
        raise StoreUnavailable("a folder, not a file")
    if not path.exists() or not path.stat().st_size:
        return False
    if not dump.is_sqlite(path):
        raise StoreUnavailable("not an SQLite database")
    with dump.open_read_only(path) as connection:
        return bool(dump.raw_tables(connection))


def _store_elsewhere(path: Path, state_folder: Path | None) -> Path:
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return (state_folder or settings().state).expanduser().resolve() / f"{path.stem}-{digest}.db"


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, and not by themselves
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -16384")  # 16 MB: what leads to each of 1,000,000 rows


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(engine: Engine) -> None:
    """Let readers and a writer not wait for each other; the file remembers it."""
    deadline = time.monotonic() + LOCK_SECONDS
    connection = engine.raw_connection()
    try:
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:  # SQLite itself does not wait for this
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        connection.close()


def _make_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        inspector = inspect(connection)
        present = {*inspector.get_table_names(), *inspector.get_view_names()}
        for table in metadata.sorted_tables:
            if table.name in present:
                columns = {column["name"] for column in inspector.get_columns(table.name)}
                if missing := {column.name for column in table.columns} - columns:
                    raise StoreUnavailable(
                        f"its table {table.name} is another program's: it has no column"
                        f" {', '.join(sorted(missing))}"
                    )
    if not {table.name for table in metadata.sorted_tables} <= present:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            metadata.create_all(connection)
            describe_stored(connection)
