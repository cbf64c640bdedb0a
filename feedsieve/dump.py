"""Chat dumps: SQLite files with raw messages, read without leaving a trace beside them."""

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
"""What a dump holds, for messages to people."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a raw table there is: its last row number, its rows, the characters in them."""

    last_row: int
    rows: int
    characters: int


def is_sqlite(path: Path) -> bool:
    """Return whether the file starts as SQLite databases do. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def may_be_written(path: Path) -> bool:
    """Return whether `path` and its folder may be written. Raises OSError.

    The owner's write bits count as well as the system's answer, which for root is always yes.
    """
    return all(
        place.stat().st_mode & stat.S_IWUSR and os.access(place, os.W_OK)
        for place in (path, path.parent)
    )


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an SQLite file in one read transaction.

    Where nothing may be written nothing is, not even a `-shm` file: SQLite is told that the
    database cannot change, or, if there is a log with changes still to come into it, reads a copy.
    Elsewhere SQLite may tidy up: undo what a writer that crashed left half done, delete its logs.
    Raises OSError and sqlite3.Error.
    """
    path = path.resolve()
    with ExitStack() as stack:
        mode = "mode=rw"
        if not may_be_written(path):
            logs = [log for log in _logs(path) if log.exists() and log.stat().st_size]
            if logs:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="feedsieve-")))
                for file in (path, *logs):
                    shutil.copyfile(file, folder / file.name)
                path = folder / path.name
            else:
                mode = "immutable=1"
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
    """Return the names of the raw message tables in a database; none: it is not a dump."""
    return [
        table
        for table, columns in _COLUMNS.items()
        if {*columns[:2]} <= _columns_of(connection, table)
    ]


def last_row(connection: sqlite3.Connection, table: str) -> int:
    """Return the highest row number of a raw table."""
    found = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
    return _FIRST_ROW if found is None else int(found)


def extent(connection: sqlite3.Connection, table: str, last: int) -> Extent:
    """Return the extent of a raw table up to and with the row `last`.

    Equal extents at two times mean that nothing came, went, or changed its length.
    """
    text = _COLUMNS[table][1]
    count, characters = connection.execute(
        f"SELECT count(*), total(length({text})) FROM {table} WHERE rowid <= ?", (last,)
    ).fetchone()
    return Extent(last, count, int(characters))


def rows(
    connection: sqlite3.Connection, table: str, after: Extent | None = None
) -> Iterator[Message]:
    """Yield the messages of a raw table in its order, from the row that follows `after`.

    What is NULL is empty.
    """
    present = _columns_of(connection, table)
    wanted = [name if name in present else "NULL" for name in _COLUMNS[table]]
    found = connection.execute(
        f"SELECT {', '.join(wanted)} FROM {table} WHERE rowid > ? ORDER BY rowid",
        (after.last_row if after else _FIRST_ROW,),
    )
    for identifier, text, *channel in found:
        yield Message(
            id=_string(identifier),
            text=_string(text),
            channel=_string(channel[0]) if channel else None,
        )


def _columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    found = connection.execute(
        "SELECT info.name FROM sqlite_master AS kept, pragma_table_info(kept.name) AS info"
        " WHERE kept.type = 'table' AND kept.name = ?",
        (table,),
    )
    return {name for (name,) in found}


def _logs(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]


def _string(value: str | bytes | float | None) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)
