"""Backup and restore of a store in PostgreSQL: pg_dump writes, pg_restore reads.

A restore fills tables of a schema of its own, and moves them into the store's in one short
transaction. The rows come from the backup, the tables from feedsieve: so a backup may be restored
into another schema, and cannot bring statements along.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from sqlalchemy import URL, Connection, Engine, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from feedsieve.files import sync
from feedsieve.message import StoreUnavailable
from feedsieve.settings import environment_with
from feedsieve.store import migrations
from feedsieve.store.backup import (
    BackupFailed,
    Progress,
    Restored,
    refuse_to_replace,
    time_of_replacement,
)
from feedsieve.store.database import (
    check_revision,
    connect,
    open_database,
    unavailable,
    without_password,
)
from feedsieve.store.schema import REVISION, curated_messages, messages, metadata, revisions

_MAGIC = b"PGDMP"
_PACKAGE = "PostgreSQL's client programs (Debian: apt-get install postgresql-client)"
_LOCK_SECONDS = 60  # that pg_dump waits for a lock on a table
_COPY = re.compile(rb"COPY .+\.\"?(\w+)\"? \(([\w\", ]+)\) FROM stdin;\n")
_END = b"\\.\n"
_TOO_OLD = re.compile(r"server version: ([\d.]+).*; pg_dump version: ([\d.]+)")


@dataclass
class _Contents:
    """The revision of a backup, and the number of rows of each table in it."""

    revision: str | None = None
    rows: dict[str, int] = field(default_factory=dict)


def back_up(url: URL, target: Path, progress: Progress) -> int:
    """Dump the store's tables to `target`, for its owner only; return the number of messages.

    Raises BackupFailed, StoreUnavailable and OSError.
    """
    with _engine(url) as engine, engine.connect() as connection, connection.begin():
        schema = _schema(connection)
        if not inspect(connection).has_table(messages.name):
            raise BackupFailed(f"there is no message store {_named(url)}")
        expected = _count(connection)
    tables = [*(table.name for table in metadata.sorted_tables), revisions.name]
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        copy = Path(folder) / target.name
        options = ["--format=custom", f"--file={copy}", f"--lock-wait-timeout={_LOCK_SECONDS}s"]
        options += [f'--table="{_quoted(schema)}"."{name}"' for name in tables]
        options.append(f"--dbname={_without_secrets(url)}")
        try:
            with _program("pg_dump", options, url) as dump:
                while dump.poll() is None:
                    progress(copy.stat().st_size if copy.exists() else 0, 0)
                    time.sleep(0.2)
        except BackupFailed as error:
            raise BackupFailed(f"{target}: {error}") from error
        found = _read(copy).rows.get(messages.name, 0)
        if found < expected:
            raise BackupFailed(f"{target}: it has {found:,} of {expected:,} messages; try again")
        copy.chmod(0o600)
        sync(copy)
        copy.replace(target)
        sync(target.parent)
    return found


def restore(file: Path, url: URL, progress: Progress, *, replace: bool) -> Restored:
    """Make the store at `url` that of a backup. The replaced tables move to another schema.

    Raises BackupFailed, StoreUnavailable and OSError.
    """
    with file.open("rb") as archive:
        if archive.read(len(_MAGIC)) != _MAGIC:
            raise BackupFailed(
                f"{file}: not a backup of a store in PostgreSQL; `feedsieve import` reads SQLite"
            )
    contents = _read(file)
    if messages.name not in contents.rows:
        raise BackupFailed(f"{file}: not a backup of a message store")
    try:
        check_revision(contents.revision)
    except StoreUnavailable as error:
        raise BackupFailed(f"{file}: {error}") from error
    with _engine(url) as engine:
        with engine.connect() as connection, connection.begin():
            schema = _schema(connection)
            has_store = inspect(connection).has_table(messages.name)
            there = _count(connection) if has_store else 0
            refuse_to_replace(_named(url), there, replace=replace)
        time_ = time_of_replacement().lower()
        ready, kept = f"feedsieve_restoring_{time_}", f"feedsieve_replaced_{time_}"
        with _new_schema(engine, ready):
            _fill(url, ready, file, contents, progress)
            is_kept = _swap(engine, schema, ready, kept)
    return Restored(contents.rows[messages.name], f"schema {kept}" if is_kept else None)


def _read(file: Path) -> _Contents:
    """Read all of a backup. Raises BackupFailed if it is damaged."""
    contents = _Contents()
    with _rows(file) as lines:
        for line in lines:
            if not (found := _COPY.fullmatch(line)):
                continue
            table, rows = found[1].decode(), 0
            for row in _block(lines):
                rows += 1
                if table == revisions.name:
                    contents.revision = row.decode().strip()
            contents.rows[table] = rows
    return contents


def _fill(url: URL, schema: str, file: Path, contents: _Contents, progress: Progress) -> None:
    """Create the tables in a schema, fill them from a backup, and bring them to this version's."""
    options = f"{url.query.get('options', '')} -csearch_path={schema}".strip()
    own = url.update_query_dict({"options": options})
    with _engine(own) as engine:
        with engine.begin() as connection:
            _create_tables(connection, contents.revision)
            keys = _drop_foreign_keys(connection)
            _copy_rows(connection, file, sum(contents.rows.values()), progress)
            for statement in keys:
                connection.execute(text(statement))
            _set_sequences(connection)
        open_database(own).dispose()


def _create_tables(connection: Connection, revision: str | None) -> None:
    if revision == REVISION:
        metadata.create_all(connection)
        migrations.stamp(connection)
    else:
        migrations.upgrade(connection, revision or "1")


def _copy_rows(connection: Connection, file: Path, total: int, progress: Progress) -> None:
    columns = {
        name: {column["name"] for column in inspect(connection).get_columns(name)}
        for name in inspect(connection).get_table_names()
    }
    cursor: Any = connection.connection.cursor()
    done = 0
    with _rows(file) as lines, closing(cursor):
        for line in lines:
            if not (found := _COPY.fullmatch(line)):
                continue
            table = found[1].decode()
            named = [name.strip(' "') for name in found[2].decode().split(",")]
            if table == revisions.name:
                for _row in _block(lines):
                    pass
                continue
            if not set(named) <= columns.get(table, set()):
                raise BackupFailed(f"the table {table} is not one of a message store")
            quoted = ", ".join(f'"{name}"' for name in named)
            with cursor.copy(f'COPY "{table}" ({quoted}) FROM STDIN') as copy:
                for row in _block(lines):
                    copy.write(row)
                    done += 1
                    if done % 1000 == 0:
                        progress(done, total)


def _drop_foreign_keys(connection: Connection) -> list[str]:
    """Drop the foreign keys, since rows come by the tables' names; return how to add them."""
    rows = connection.execute(
        text(
            "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)"
            " FROM pg_constraint"
            " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
        )
    ).all()
    for table, name, _definition in rows:
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
    return [f"ALTER TABLE {table} ADD CONSTRAINT {name} {key}" for table, name, key in rows]


def _set_sequences(connection: Connection) -> None:
    """Let generated numbers follow the largest ones."""
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        for column in inspector.get_pk_constraint(table)["constrained_columns"]:
            find = select(func.pg_get_serial_sequence(table, column))
            if sequence := connection.execute(find).scalar_one():
                largest = f'(SELECT max("{column}") FROM "{table}")'
                statement = (
                    f"SELECT setval(:sequence, coalesce({largest}, 1), {largest} IS NOT NULL)"
                )
                connection.execute(text(statement), {"sequence": sequence})


def _swap(engine: Engine, schema: str, ready: str, kept: str) -> bool:
    """Move the store's tables to the schema `kept`, and those in `ready` in their place.

    Return whether there were any. Writers wait for the end of the transaction.
    """
    ours = [*(table.name for table in metadata.sorted_tables), revisions.name]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        there = set(_relations(connection, schema)) & set(ours)
        if there:
            connection.execute(text(f"CREATE SCHEMA {kept}"))
        for name in sorted(there):
            _move(connection, name, schema, kept)
        for name in _relations(connection, ready):
            _move(connection, name, ready, schema)
    return bool(there)


def _relations(connection: Connection, schema: str) -> list[str]:
    inspector = inspect(connection)
    return [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]


def _move(connection: Connection, name: str, source: str, target: str) -> None:
    kind = "VIEW" if name == curated_messages.name else "TABLE"
    place = f'"{_quoted(source)}"."{name}"'
    connection.execute(text(f'ALTER {kind} {place} SET SCHEMA "{_quoted(target)}"'))


def _schema(connection: Connection) -> str:
    schema: str | None = connection.execute(select(func.current_schema())).scalar_one()
    if schema is None:
        raise BackupFailed("the database has no schema of the search path")
    return schema


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(messages)).scalar_one()


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _block(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the rows of one table."""
    for line in lines:
        if line == _END:
            return
        yield line


@contextmanager
def _new_schema(engine: Engine, name: str) -> Iterator[None]:
    """Create a schema, and drop it with what is left in it when the block ends."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {name} CASCADE"))


@contextmanager
def _engine(url: URL) -> Iterator[Engine]:
    """Yield an engine; raise its errors as StoreUnavailable."""
    engine = connect(url)
    driver: Any = engine.dialect.dbapi
    try:
        yield engine
    except (SQLAlchemyError, driver.Error) as error:
        raise unavailable(_named(url), error) from error
    finally:
        engine.dispose()


@contextmanager
def _rows(file: Path) -> Iterator[Iterator[bytes]]:
    """Yield the lines of a backup as pg_restore writes them."""
    try:
        with _program("pg_restore", ["--data-only", "--file=-", str(file)]) as program:
            yield iter(program.stdout or ())
    except BackupFailed as error:
        raise BackupFailed(f"{file}: {error}") from error


@contextmanager
def _program(
    name: str, arguments: list[str], url: URL | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one of PostgreSQL's programs, the password in its environment. Raises BackupFailed."""
    path = shutil.which(name)
    if path is None:
        raise BackupFailed(f"{name} is not installed; it is one of {_PACKAGE}")
    password = _password(url) if url else None
    with TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+b") as errors:
        program = subprocess.Popen(
            [path, *arguments],
            env=environment_with(**({"PGPASSWORD": password} if password else {}), LC_ALL="C"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield program
            _drain(program.stdout)
            program.wait()
        finally:
            if program.poll() is None:
                program.kill()
                program.wait()
        if program.returncode:
            errors.seek(0)
            output = errors.read().decode(errors="replace")
            raise BackupFailed(_reason(name, output, program.returncode))


def _drain(stream: IO[bytes] | None) -> None:
    while stream and stream.read(2**16):
        pass


def _reason(name: str, output: str, code: int) -> str:
    if too_old := _TOO_OLD.search(output):
        server, own = too_old[1], too_old[2]
        return (
            f"pg_dump {own} does not read a server of version {server}; install"
            f" postgresql-client-{server.partition('.')[0]}, and put it before others in PATH"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[0] if lines else f"{name} ended with exit code {code}"  # below 0: by a signal


def _named(url: URL) -> str:
    return without_password(url.render_as_string(hide_password=False))


def _password(url: URL) -> str | None:
    given = url.password or url.query.get("password")
    return str(given) if given else None


def _without_secrets(url: URL) -> str:
    """Return a URL for PostgreSQL's programs, which others may see in the list of processes."""
    if "sslpassword" in url.query:
        raise BackupFailed("pg_dump cannot be given sslpassword; use a key without one")
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return bare.difference_update_query(["password"]).render_as_string()
