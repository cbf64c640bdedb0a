"""Chat dumps: SQLite files with tables of raw messages, read without changing anything."""

import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from feedsieve.message import Message
from feedsieve.sources.fields import string

HEADER = b"SQLite format 3\x00"
"""The first bytes of an SQLite file."""
_COLUMNS = {
    "raw_rent_messages": ("msg_id", "msg"),
    "tg_messages": ("id", "msg", "channel"),
}
_FIRST_ROW = -(2**63)
_ROW_NUMBERS = ("rowid", "_rowid_", "oid")  # names of one thing, unless a column has them

RAW_TABLES = " or ".join(f"{table}({', '.join(names)})" for table, names in _COLUMNS.items())
"""The tables of a dump, for error messages."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The content of a raw table: its last row number, its rows, and a hash of what they hold."""

    last_row: int
    rows: int
    digest: int  # 56 bits


def is_sqlite(path: Path) -> bool:
    """Return whether the file has SQLite's header. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


def is_writable(path: Path) -> bool:
    """Return whether a file and its folder are writable. Raises OSError.

    The owner's write bits must be set too: the system lets root write everywhere.
    """
    return all(
        place.stat().st_mode & stat.S_IWUSR and os.access(place, os.W_OK)
        for place in (path, path.parent)
    )


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an SQLite file in one read transaction. Raises OSError and sqlite3.Error.

    Nothing is written beside a read-only file, not even `-shm`: SQLite opens it as immutable, or a
    copy of it if its logs hold changes. Elsewhere SQLite may undo the work of a crashed writer and
    delete its logs.
    """
    path = path.resolve()
    with ExitStack() as stack:
        mode = "mode=rw"
        if not is_writable(path):
            mode = "immutable=1"
            logs = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
            if logs := [log for log in logs if log.exists() and log.stat().st_size]:
                mode = "mode=rw"
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="feedsieve-")))
                for file in (path, *logs):
                    shutil.copyfile(file, folder / file.name)
                path = folder / path.name
        connection = sqlite3.connect(
            f"{path.as_uri()}?{mode}",
            uri=True,
            timeout=60,
            isolation_level=None,
            check_same_thread=False,
        )
        stack.enter_context(closing(connection))
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        yield connection


def raw_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the raw message tables and views; none if the database is not a dump."""
    present = tables(connection)
    return [
        present[table]
        for table, names in _COLUMNS.items()
        if table in present and {*names[:2]} <= {*columns(connection, present[table])}
    ]


def last_row(connection: sqlite3.Connection, table: str) -> int:
    """Return the highest row number of a raw table; the lowest possible if it has no numbers."""
    number = _row_number(connection, table)
    if number is None:
        return _FIRST_ROW
    highest = connection.execute(f"SELECT max({number}) FROM {quoted(table)}").fetchone()[0]
    return _FIRST_ROW if highest is None else int(highest)


def extent(connection: sqlite3.Connection, table: str, last: int) -> Extent:
    """Return the extent of a raw table up to row `last`, or of all of it without row numbers.

    It changes if rows are added, removed or changed.
    """
    number = _row_number(connection, table)
    values = ", ".join(
        f"CAST(ifnull({name}, '') AS BLOB)" for name in _present_columns(connection, table)
    )
    statement = f"SELECT {values} FROM {quoted(table)}" + (
        f" WHERE {number} <= ? ORDER BY {number}" if number else " WHERE ? IS NOT NULL"
    )
    count, digest = 0, hashlib.blake2b(digest_size=7)
    for row in connection.execute(statement, (last,)):
        count += 1
        for value in row:
            digest.update(b"%d:%b" % (len(value), value))
    return Extent(last, count, int.from_bytes(digest.digest()))


def rows(
    connection: sqlite3.Connection, table: str, after: Extent | None = None
) -> Iterator[Message]:
    """Yield the messages of a raw table that follow `after`; NULL becomes an empty string.

    A view, or a table WITHOUT ROWID, has no row numbers and is read from its start.
    """
    names = _present_columns(connection, table)
    statement = f"SELECT {', '.join(names)} FROM {quoted(table)}"
    number = _row_number(connection, table)
    if number and after:
        result = connection.execute(
            f"{statement} WHERE {number} > ? ORDER BY {number}", (after.last_row,)
        )
    else:
        result = connection.execute(statement + (f" ORDER BY {number}" if number else ""))
    for identifier, text, *channel in result:
        yield Message(string(identifier), string(text), string(channel[0]) if channel else None)


def _present_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns that are read of a raw table; NULL for one that it does not have."""
    present = columns(connection, table)
    return [name if name in present else "NULL" for name in _COLUMNS[table.lower()]]


def tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the tables and views: their names in lower case, and as they are written."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, rowid"
    )
    return {name.lower(): name for (name,) in names}


def columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return the columns of a table or view: their names in lower case, and as written."""
    names = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {name.lower(): name for (name,) in names}


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _row_number(connection: sqlite3.Connection, table: str) -> str | None:
    """Return the name of the row numbers; None for a view or a table without them."""
    taken = columns(connection, table)
    kind = "SELECT type FROM sqlite_master WHERE name = ?"
    if connection.execute(kind, (table,)).fetchone()[0] == "view":
        return None
    for name in _ROW_NUMBERS:
        if name not in taken:
            try:
                connection.execute(f"SELECT {name} FROM {quoted(table)} LIMIT 0")
            except sqlite3.OperationalError:
                return None
            return name
    return None
