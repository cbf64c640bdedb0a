"""Opening of the store's database: SQLite with its settings, or PostgreSQL."""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from feedsieve.message import StoreUnavailable
from feedsieve.settings import settings
from feedsieve.sources.chats import sqlite_dump
from feedsieve.store.curation import store_missing_facts
from feedsieve.store.schema import (
    REVISION,
    curated_messages,
    curated_view,
    messages,
    metadata,
    revisions,
)

_log = logging.getLogger("feedsieve")

LOCK_SECONDS = 60.0  # that a writer waits for another one, such as an import
READER_LOCK_SECONDS = 10.0  # that a reader in PostgreSQL waits for a lock on a whole table
# kB of SQLite's pages in memory, by connection: the index pages of a million rows, and during an
# import those that it fills.
_CACHE, _IMPORT_CACHE = 16_384, 131_072
# A server that vanishes without a word, with its host or behind a router, is given up within 40
# seconds; Linux alone would wait for a quarter of an hour. A URL may say otherwise.
_TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}
_ADVISORY_LOCK = int.from_bytes(b"feedsiev")  # serialises PostgreSQL's writers


def find_database(
    location: str | Path, state_folder: Path | None, *, may_be_read_only: bool = False
) -> tuple[URL, Path | None]:
    """Return the database of a path or URL, and the chat dump to import into it, if any.

    The database of a read-only dump is a file in `state_folder`. Raises StoreUnavailable, OSError,
    sqlite3.Error and SQLAlchemyError.
    """
    url, path = _resolve(location)
    if path is None:
        return url, None
    is_dump = _is_dump(path)
    file = path
    if path.exists() and not sqlite_dump.is_writable(path) and (is_dump or not may_be_read_only):
        if not is_dump:
            raise StoreUnavailable("it may not be written, and it is not a chat dump to read")
        digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
        folder = (state_folder or settings().state).expanduser().resolve()
        file = folder / f"{path.stem}-{digest}.db"
        _log.warning("%s may not be written; its messages and scores are stored in %s", path, file)
    return url.set(database=str(file)), path if is_dump else None


def locate(location: str | Path, state_folder: Path | None, *, is_replaced: bool = False) -> URL:
    """Return the database of a path or URL; a damaged file only if it `is_replaced`.

    Raises StoreUnavailable.
    """
    try:
        url, path = _resolve(location)
        if is_replaced and path and path.is_file() and not sqlite_dump.is_sqlite(path):
            return url.set(database=str(path))
        url, _dump = find_database(location, state_folder)
    except (StoreUnavailable, RuntimeError, OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise unavailable(location, error) from error
    return url


def open_database(url: URL, *, back_up: bool = True) -> Engine:
    """Return the engine of a database, whose tables are created or migrated as necessary.

    With `back_up`, SQLite's file is copied before it is migrated. Raises StoreUnavailable, OSError,
    sqlite3.Error and SQLAlchemyError.
    """
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = connect(url)
    try:
        _prepare_tables(engine, back_up)  # before anything is changed in another program's database
        if engine.dialect.name == "sqlite":
            _use_write_ahead_log(engine)
    except BaseException:
        engine.dispose()  # a server tries again every few seconds
        raise
    return engine


def connect(url: URL) -> Engine:
    """Return an engine whose transactions with the execution option `writes` run one by one.

    A transaction reads a snapshot; one that writes in PostgreSQL also sees what earlier ones wrote.
    Raises StoreUnavailable.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": LOCK_SECONDS},
            pool_size=16,
            max_overflow=-1,
            pool_use_lifo=True,  # used in turns, each connection would fill its own cache
            hide_parameters=True,  # errors are logged; parameters are texts and hashes of keys
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return _connect_to_postgresql(url)


def without_password(location: str | Path) -> str:
    """Return a path or URL for messages."""
    if "://" not in str(location):
        return str(location)
    try:
        url = _parse(str(location))
    except StoreUnavailable:
        return "at the URL given"
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    return url.update_query_dict(hidden).render_as_string()


def unavailable(location: str | Path, error: Exception) -> StoreUnavailable:
    """Return the reason of `error` on one line, after the store's name without its password."""
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    message = f"message store {without_password(location)}: {reason}"
    return StoreUnavailable(message, _reason_for_clients(error))


def _reason_for_clients(error: Exception) -> str:
    """Return why a database failed, without paths, hosts and names of users."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, StoreUnavailable):
        return cause.reason
    if isinstance(cause, OSError):
        return cause.strerror or type(cause).__name__
    if isinstance(cause, sqlite3.Error):
        return str(cause)
    if isinstance(error, DBAPIError):  # of PostgreSQL, which says nothing if it is not reached
        message = getattr(getattr(cause, "diag", None), "message_primary", None)
        return message or "the database server cannot be reached"
    return type(cause).__name__


def is_lock(error: Exception) -> bool:
    """Return whether a write failed because another process is writing."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) == "55P03" or "locked" in str(cause)


def _parse(location: str) -> URL:
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):  # their messages may quote parts of the password
        raise StoreUnavailable("not an SQLAlchemy URL") from None
    if "@" in (url.host or ""):
        raise StoreUnavailable("an @ in a URL's user or password must be written %40")
    return url


def _resolve(location: str | Path) -> tuple[URL, Path | None]:
    """Return the URL of a location, and SQLite's path. Raises StoreUnavailable."""
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
    return url, Path(location).expanduser().resolve()


def _is_dump(path: Path) -> bool:
    if path.is_dir():
        raise StoreUnavailable("a folder, not a file")
    if not path.exists() or not path.stat().st_size:
        return False
    if not sqlite_dump.is_sqlite(path):
        raise StoreUnavailable("not an SQLite database")
    with sqlite_dump.open_read_only(path) as connection:
        return bool(sqlite_dump.raw_tables(connection))


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("writes"))


def _connect_to_postgresql(url: URL) -> Engine:
    timeouts = {key: value for key, value in _TIMEOUTS.items() if key not in url.query}
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level="REPEATABLE READ",
            # In UTF-8 whatever the URL says: a database in SQL_ASCII would give bytes.
            connect_args=timeouts | {"client_encoding": "utf8"},
        )
    except ImportError as error:
        raise StoreUnavailable(
            "PostgreSQL's driver is missing: pip install -c constraints.txt -e '.[postgres]'"
            f" ({error})"
        ) from error
    event.listen(engine, "connect", _configure_postgresql)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _configure_postgresql(connection: Any, _record: Any) -> None:
    connection.autocommit = True  # a rollback would undo the setting
    connection.execute(f"SET lock_timeout = {round(READER_LOCK_SECONDS * 1000)}")
    connection.autocommit = False


def _begin_postgresql(connection: Connection) -> None:
    if _writes(connection):
        for statement in (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            f"SET LOCAL lock_timeout = {round(LOCK_SECONDS * 1000)}",
            f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})",
        ):
            connection.exec_driver_sql(statement)


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # only _begin_sqlite starts transactions
    connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
    connection.execute("PRAGMA secure_delete = ON")  # what a person deletes leaves the file
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")


@contextmanager
def large_cache(connection: Connection) -> Iterator[None]:
    """Give SQLite a larger cache for an import.

    Its rows are everywhere in the indexes, whose pages would be written and read again.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql(f"PRAGMA cache_size = -{_IMPORT_CACHE}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _use_write_ahead_log(engine: Engine) -> None:
    """Switch the file to a write-ahead log: readers and the writer do not block each other."""
    deadline = time.monotonic() + LOCK_SECONDS
    connection = engine.raw_connection()
    try:
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:  # SQLite's timeout does not apply here
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        connection.close()


def _prepare_tables(engine: Engine, back_up: bool) -> None:
    """Create the tables of a new store; migrate those of an earlier version."""
    with engine.connect() as connection:
        if find_revision(connection) == REVISION:
            return
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        found = find_revision(connection)
        if found == REVISION:  # another process was faster
            return
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs its plugins when imported
        from feedsieve.store import migrations  # 0.1 s

        check_revision(found)
        if found is None and not is_earlier_store(connection):
            metadata.create_all(connection)
            migrations.stamp(connection)
            return
        backup = _back_up(engine, found or "1") if back_up else None
        _log.info("migrating the message store%s", f"; a copy of it is {backup}" if backup else "")
        migrations.upgrade(connection)
        if not inspect(connection).has_table(curated_messages.name):  # a migration removes it
            connection.execute(curated_view)
        store_missing_facts(connection)


def find_revision(connection: Connection) -> str | None:
    """Return the revision of the tables, or None if they have none."""
    if not inspect(connection).has_table(revisions.name):
        return None
    return connection.execute(select(revisions.c.version_num)).scalar_one_or_none()


def check_revision(found: str | None) -> None:
    """Raise StoreUnavailable if a revision is newer than this version of feedsieve."""
    from feedsieve.store import migrations  # 0.1 s

    if found is not None and not migrations.is_known(found):
        raise StoreUnavailable(
            f"it was written by a newer version of feedsieve (its schema is {found}, this"
            f" version's {REVISION}); update feedsieve"
        )


def is_earlier_store(connection: Connection) -> bool:
    """Return whether the database has the messages of a version that had no revisions.

    Raises StoreUnavailable if it has tables of another program by our names.
    """
    inspector = inspect(connection)
    present = {*inspector.get_table_names(), *inspector.get_view_names()}
    columns = {
        name: {column["name"] for column in inspector.get_columns(name)}
        for name in present & {table.name for table in metadata.sorted_tables}
    }
    is_earlier = {"id", "text", "channel", "time", "fingerprint", "seen_at"} <= columns.get(
        messages.name, set()
    )
    for table in metadata.sorted_tables:
        if table.name not in columns or (is_earlier and table in (messages, curated_messages)):
            continue
        if missing := {column.name for column in table.columns} - columns[table.name]:
            raise StoreUnavailable(
                f"its table {table.name} is another program's: it has no column"
                f" {', '.join(sorted(missing))}"
            )
    return is_earlier


def _back_up(engine: Engine, revision: str) -> Path | None:
    """Copy SQLite's file before it is migrated; return the copy. None for PostgreSQL.

    An unfinished copy has another name. Raises sqlite3.Error if the disk is full.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = Path(str(engine.url.database))
    copy = path.with_name(f"{path.name}.backup-{revision}")
    unfinished = copy.with_name(f"{copy.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as to:
            source.backup(to)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(copy)
    return copy
