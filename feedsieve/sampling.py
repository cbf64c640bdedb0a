"""Messages at random, without reading all of them."""

import random

from sqlalchemy import ColumnElement, Connection, Integer, func, literal_column, select, tablesample

from feedsieve.schema import messages

_ROW_NUMBER = literal_column(
    "messages.rowid", Integer
)  # SQLite's, without gaps: nothing is deleted
_PAGES = literal_column(
    "pg_relation_size('messages') / current_setting('block_size')::integer", Integer
)
_LONGEST_LIST = 1000  # values in one IN


def sample(connection: Connection, limit: int) -> list[str]:
    """Return `limit` different identifiers in random order, or all if there are fewer."""
    if not limit:
        return []
    draw = sample_by_row if connection.dialect.name == "sqlite" else sample_by_page
    identifiers = draw(connection, limit)
    random.shuffle(identifiers)
    return identifiers[:limit]


def sample_by_row(connection: Connection, limit: int) -> list[str]:
    ends = [select(end(_ROW_NUMBER)).select_from(messages) for end in (func.min, func.max)]
    lowest, highest = (connection.execute(end).scalar_one_or_none() for end in ends)
    if lowest is None or highest is None:
        return []
    numbers = range(lowest, highest + 1)
    found: list[str] = []
    if limit < len(numbers) // 4:
        drawn = random.sample(numbers, 2 * limit)  # more than enough, should there be gaps
        for start in range(0, len(drawn), _LONGEST_LIST):
            part = _ROW_NUMBER.in_(drawn[start : start + _LONGEST_LIST])
            found += _identifiers(connection, part)
    return found if len(found) >= limit else _identifiers(connection)


def sample_by_page(connection: Connection, limit: int) -> list[str]:
    """Return the messages of some pages of PostgreSQL's table, many more than asked for, or all."""
    pages = connection.execute(select(_PAGES)).scalar_one()
    found: list[str] = []
    if 8 * limit < pages:
        drawn = tablesample(messages, func.system(100 * 2 * limit / pages))
        found += connection.execute(select(drawn.c.id)).scalars()
    return found if len(found) >= limit else _identifiers(connection)


def _identifiers(connection: Connection, *conditions: ColumnElement[bool]) -> list[str]:
    return list(connection.execute(select(messages.c.id).where(*conditions)).scalars())
