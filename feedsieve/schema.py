"""The tables of the message store, and the view of it that people query."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Index,
    MetaData,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.ddl import CreateView

from feedsieve.message import in_utc


class UtcTime(TypeDecorator[datetime]):
    """A moment, kept without its zone, which is UTC, and read back with it."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return in_utc(value).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


# Sorted by its bytes, as SQLite does; PostgreSQL would sort it as the database's language does.
_Text = Text().with_variant(Text(collation="C"), "postgresql")
_Fingerprint = String(32).with_variant(String(32, collation="C"), "postgresql")

metadata = MetaData()

messages = Table(
    "messages",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("text", _Text, nullable=False),
    Column("channel", _Text),
    Column("time", UtcTime),
    Column("fingerprint", _Fingerprint, nullable=False),
    Column("seen_at", UtcTime, nullable=False),  # when this text of the message came in
    Index("messages_by_fingerprint", "fingerprint", "id"),
)

# Every text that a message had and has no longer.
message_history = Table(
    "message_history",
    metadata,
    Column("id", _Text, nullable=False),
    Column("text", _Text, nullable=False),
    Column("replaced_at", UtcTime, nullable=False),
    Index("message_history_by_id", "id"),
)

# What every text that ever came in is, for curation; the fields are those of `TextFacts`.
texts = Table(
    "texts",
    metadata,
    Column("fingerprint", _Fingerprint, primary_key=True),
    Column("language", _Text, nullable=False),
    Column("template", _Fingerprint),
    Column("mentioned", _Fingerprint),
    Index("texts_by_template", "template", "mentioned"),
)

scores = Table(
    "scores",
    metadata,
    Column("model", _Text, primary_key=True),
    Column("fingerprint", _Fingerprint, primary_key=True),
    Column("score", Float(53), nullable=False),
    sqlite_with_rowid=False,
)
Index("scores_by_rank", scores.c.model, scores.c.score.desc(), scores.c.fingerprint)

models = Table(
    "models",
    metadata,
    Column("tag", _Text, primary_key=True),
    Column("threshold", Float(53), nullable=False),  # so that its decisions outlive its files
    Column("started_at", UtcTime, nullable=False),
    Column("completed_at", UtcTime),
)

# How far the raw tables of the chat dump were read; the fields are those of `dump.Extent`.
dump_extents = Table(
    "dump_extents",
    metadata,
    Column("raw_table", _Text, primary_key=True),
    Column("last_row", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("characters", BigInteger, nullable=False),
)


NOTICED = 3
"""From how many mentioned on, a text that is otherwise the same for all is a bot's notice."""


def _curated() -> Select[Any]:
    """Return the messages that are worth looking at: each text once, and no notices of bots."""
    notices = (
        select(texts.c.template)
        .where(texts.c.template.is_not(None))
        .group_by(texts.c.template)
        .having(func.count(texts.c.mentioned.distinct()) >= NOTICED)
    )
    distinct = (
        select(func.min(messages.c.id).label("id"), func.count().label("copies"))
        .group_by(messages.c.fingerprint)
        .subquery("distinct_messages")
    )
    first = [messages.c[name] for name in ("id", "text", "channel", "time", "fingerprint")]
    return (
        select(*first, texts.c.language, distinct.c.copies)
        .join(distinct, distinct.c.id == messages.c.id)
        .join(texts, texts.c.fingerprint == messages.c.fingerprint)
        .where(texts.c.template.is_(None) | texts.c.template.not_in(notices))
    )


curated_messages = CreateView(_curated(), "curated_messages", metadata=metadata).table


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that can say what to do on a conflict, in the connection's dialect."""
    is_sqlite = connection.dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)
