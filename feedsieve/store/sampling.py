"""Random messages, and the newest, found without reading the whole table where that is possible."""

import random
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Integer, func, literal_column, select, tablesample

from feedsieve.store.schema import messages

# Messages are rarely deleted, so that SQLite's row numbers have few gaps.
_ROW_NUMBER = literal_column("messages.rowid", Integer)
_PAGES = literal_column(
    "pg_relation_size('messages') / current_setting('block_size')::integer", Integer
)
_MAX_IN = 1000  # values in one IN


def sample(connection: Connection, limit: int) -> list[str]:
    """Return `limit` different identifiers in random order, or all if there are fewer."""
    if not limit:
        return []
    draw = _sample_rows if connection.dialect.name == "sqlite" else _sample_pages
    identifiers = draw(connection, limit)
    if len(identifiers) < limit:
        identifiers = _identifiers(connection)
    random.shuffle(identifiers)
    return identifiers[:limit]


def newest(connection: Connection) -> datetime | None:
    """Return when the newest message was stored: in SQLite that of the last row."""
    if connection.dialect.name == "sqlite":
        last = select(messages.c.seen_at).order_by(_ROW_NUMBER.desc()).limit(1)
    else:
        last = select(func.max(messages.c.seen_at, type_=messages.c.seen_at.type))
    return connection.execute(last).scalar_one_or_none()


def _sample_rows(connection: Connection, limit: int) -> list[str]:
    """Return twice `limit` messages by row number; none if that is most of the table."""
    ends = [select(end(_ROW_NUMBER)).select_from(messages) for end in (func.min, func.max)]
    lowest, highest = (connection.execute(end).scalar_one_or_none() for end in ends)
    if lowest is None or highest is None or limit >= (highest - lowest + 1) // 4:
        return []
    rows = random.sample(range(lowest, highest + 1), 2 * limit)
    identifiers: list[str] = []
    for start in range(0, len(rows), _MAX_IN):
        identifiers += _identifiers(connection, _ROW_NUMBER.in_(rows[start : start + _MAX_IN]))
    return identifiers


def _sample_pages(connection: Connection, limit: int) -> list[str]:
    """Return the messages of about twice `limit` pages in PostgreSQL; none of a small table."""
    pages = connection.execute(select(_PAGES)).scalar_one()
    if 8 * limit >= pages:
        return []
    drawn = tablesample(messages, func.system(100 * 2 * limit / pages))
    return list(connection.execute(select(drawn.c.id)).scalars())


def _identifiers(connection: Connection, *conditions: ColumnElement[bool]) -> list[str]:
    return list(connection.execute(select(messages.c.id).where(*conditions)).scalars())
