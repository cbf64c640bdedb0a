"""Import of the new messages of a chat dump whose file is the store's own."""

import sqlite3
from dataclasses import asdict
from itertools import chain

from sqlalchemy import Connection, select

from feedsieve.sources.chats import sqlite_dump
from feedsieve.sources.readers import Messages
from feedsieve.store.ingest import ImportCounts, Progress, import_messages
from feedsieve.store.schema import dump_extents, upsert


def import_dump(
    connection: Connection, source: sqlite3.Connection, progress: Progress | None
) -> tuple[ImportCounts, int]:
    """Store the new messages of a dump; return their counts, and that of empty entries."""
    tables = unread_tables(connection, source)
    candidates = Messages(
        chain.from_iterable(sqlite_dump.rows(source, table, read) for table, read in tables.items())
    )
    counts = import_messages(connection, candidates, progress)
    for table in tables:
        fields = asdict(sqlite_dump.extent(source, table, sqlite_dump.last_row(source, table)))
        connection.execute(
            upsert(connection, dump_extents)
            .values(raw_table=table, **fields)
            .on_conflict_do_update(index_elements=["raw_table"], set_=fields)
        )
    return counts, candidates.report.skipped.total()


def unread_tables(
    connection: Connection, source: sqlite3.Connection
) -> dict[str, sqlite_dump.Extent | None]:
    """Return the raw tables with new rows, each with the extent to skip; None: read all of it."""
    columns = dump_extents.c["last_row", "rows", "digest"]
    unread: dict[str, sqlite_dump.Extent | None] = {}
    for table in sqlite_dump.raw_tables(source):
        statement = select(*columns).where(dump_extents.c.raw_table == table)
        row = connection.execute(statement).one_or_none()
        read = sqlite_dump.Extent(*row) if row else None
        if read is None or sqlite_dump.extent(source, table, read.last_row) != read:
            unread[table] = None
        elif sqlite_dump.last_row(source, table) != read.last_row:
            unread[table] = read
    return unread
