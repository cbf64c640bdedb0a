"""Many rows at once: batches, and inserts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Insert

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def with_next(batches: Iterable[list[Item]]) -> Iterator[tuple[list[Item], list[Item]]]:
    """Yield each batch with the one after it, which is empty for the last."""
    remaining = iter(batches)
    current = next(remaining, None)
    while current:
        following = next(remaining, [])
        yield current, following
        current = following


def insert_all(
    connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Execute an INSERT for each of `rows`, at least one, which all have the same columns.

    SQLAlchemy's own handling of the parameters takes as long as SQLite's inserts.
    """
    dialect = connection.dialect
    compiled = statement.compile(dialect=dialect, column_keys=list(rows[0]))
    values: dict[str, list[Any]] = {}
    for name in rows[0]:
        convert = statement.table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        values[name] = [convert(row[name]) if convert else row[name] for row in rows]
    parameters: list[Any]
    if compiled.positiontup:  # SQLite
        parameters = list(zip(*(values[name] for name in compiled.positiontup), strict=True))
    else:
        rows_of_values = zip(*values.values(), strict=True)
        parameters = [dict(zip(values, row, strict=True)) for row in rows_of_values]
    connection.exec_driver_sql(str(compiled), parameters)
