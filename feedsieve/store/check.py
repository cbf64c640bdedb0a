"""Check of a message store: damage, counts, and rows that have lost what they belong to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Select,
    Table,
    exists,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

from feedsieve.message import StoreUnavailable
from feedsieve.store.database import check_revision, connect, find_revision, unavailable
from feedsieve.store.schema import labels, messages, models, scores, sources, texts

_SHOWN = 10  # problems of one kind


@dataclass
class StoreReport:
    """Revision, numbers of rows (None: there is no such table), and the defects of a store."""

    revision: str | None = None
    rows: dict[str, int | None] = field(default_factory=dict)
    scores_of_earlier_texts: int | None = None  # of edited messages; they do no harm
    problems: list[str] = field(default_factory=list)


def check_store(url: URL) -> StoreReport:
    """Check the store at `url` without changing it. Raises StoreUnavailable if there is none."""
    name = url.render_as_string(hide_password=False)
    if url.get_backend_name() == "sqlite":
        name = str(url.database)
        if not Path(name).exists():
            raise StoreUnavailable(f"message store {name}: there is no such file")
    engine, report = connect(url), StoreReport()
    try:
        with engine.connect() as connection, connection.begin():
            if engine.dialect.name == "sqlite":
                report.problems += _damage(connection)
            _check_revision(connection, report)
            if not report.problems:
                _count(connection, report)
                report.problems += _orphans(connection)
    except DBAPIError as error:
        if engine.dialect.name != "sqlite":
            raise unavailable(name, error) from error
        report.problems.append(f"it is damaged: {error.orig}")
    finally:
        engine.dispose()
    return report


def _damage(connection: Connection) -> Iterator[str]:
    rows = connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})").scalars()
    yield from (" ".join(row.split()) for row in rows if row != "ok")
    lost = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    yield from (f"row {row[1]} of {row[0]} has no row of {row[2]}" for row in lost)


def _check_revision(connection: Connection, report: StoreReport) -> None:
    report.revision = find_revision(connection)
    if report.revision is None and not inspect(connection).has_table(messages.name):
        report.problems.append("it has no tables of a message store")
    try:
        check_revision(report.revision)
    except StoreUnavailable as error:
        report.problems.append(str(error))


def _count(connection: Connection, report: StoreReport) -> None:
    present = set(inspect(connection).get_table_names())
    for table in (messages, sources, labels, scores):
        statement = select(func.count()).select_from(table)
        is_there = table.name in present
        report.rows[table.name] = connection.execute(statement).scalar_one() if is_there else None
    if scores.name in present:
        has_text = exists().where(messages.c.fingerprint == scores.c.fingerprint)
        earlier = select(func.count()).select_from(scores).where(~has_text)
        report.scores_of_earlier_texts = connection.execute(earlier).scalar_one()


def _orphans(connection: Connection) -> Iterator[str]:
    """Yield what the feed or the view of curated messages leaves out, since a part is missing."""
    present = set(inspect(connection).get_table_names())
    for what, tables, statement in _ORPHANS:
        if present >= tables and (count := connection.execute(statement).scalar_one()):
            yield f"{count:,} {what}"


def _without(table: Table, condition: ColumnElement[bool]) -> Select[int]:
    """Select the number of rows of a table for which no row meets the condition."""
    return select(func.count()).select_from(table).where(~exists().where(condition))


_ORPHANS = (
    (
        "labels of messages that are not there",
        {labels.name, messages.name},
        _without(labels, messages.c.id == labels.c.message),
    ),
    (
        "scores of models that are not there",
        {scores.name, models.name},
        _without(scores, models.c.tag == scores.c.model),
    ),
    (
        "messages without the facts of their texts",
        {messages.name, texts.name},
        _without(messages, texts.c.fingerprint == messages.c.fingerprint),
    ),
)
