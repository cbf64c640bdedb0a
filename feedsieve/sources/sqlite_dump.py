"""Chat dumps: SQLite files with tables of raw messages, read without changing anything."""

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

_HEADER = b"SQLite format 3\x00"
_COLUMNS = {
    "raw_rent_messages": ("msg_id", "msg"),
    "tg_messages": ("id", "msg", "channel"),
}
_FIRST_ROW = -(2**63)

RAW_TABLES = " or ".join(f"{table}({', '.join(names)})" for table, names in _COLUMNS.items())
"""The tables of a dump, for error messages."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Size of a raw table: its last row number, its rows, and the characters in their texts."""

    last_row: int
    rows: int
    characters: int


def is_sqlite(path: Path) -> bool:
    """Return whether the file has SQLite's header. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


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
    """Return the names of the raw message tables; none if the database is not a dump."""
    return [
        table
        for table, columns in _COLUMNS.items()
        if {*columns[:2]} <= _columns_of(connection, table)
    ]


def last_row(connection: sqlite3.Connection, table: str) -> int:
    """Return the highest row number of a raw table."""
    highest = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
    return _FIRST_ROW if highest is None else int(highest)


def extent(connection: sqlite3.Connection, table: str, last: int) -> Extent:
    """Return the extent of a raw table up to row `last`.

    It changes if rows are added, removed or change their length.
    """
    text = _COLUMNS[table][1]
    count, characters = connection.execute(
        f"SELECT count(*), total(length({text})) FROM {table} WHERE rowid <= ?", (last,)
    ).fetchone()
    return Extent(last, count, int(characters))


def rows(
    connection: sqlite3.Connection, table: str, after: Extent | None = None
) -> Iterator[Message]:
    """Yield the messages of a raw table that follow `after`; NULL becomes an empty string."""
    present = _columns_of(connection, table)
    columns = [name if name in present else "NULL" for name in _COLUMNS[table]]
    result = connection.execute(
        f"SELECT {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid",
        (after.last_row if after else _FIRST_ROW,),
    )
    for identifier, text, *channel in result:
        yield Message(_string(identifier), _string(text), _string(channel[0]) if channel else None)


def _columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    names = connection.execute(
        "SELECT info.name FROM sqlite_master AS master, pragma_table_info(master.name) AS info"
        " WHERE master.type = 'table' AND master.name = ?",
        (table,),
    )
    return {name for (name,) in names}


def _string(value: str | bytes | float | None) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)
