"""Tables of the message store, and the view `curated_messages` for SQL and pandas."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.ddl import CreateView

from feedsieve.message import in_utc


class UtcTime(sa.TypeDecorator[datetime]):
    """A time in UTC, stored without a zone."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return in_utc(value).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


# PostgreSQL must sort by bytes, as SQLite does, not by the database's locale.
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_Fingerprint = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")

metadata = sa.MetaData()

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("text", _Text, nullable=False),
    sa.Column("channel", _Text),
    sa.Column("time", UtcTime),
    sa.Column("fingerprint", _Fingerprint, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),  # when this text was imported
    sa.Index("messages_by_fingerprint", "fingerprint", "id"),
)
message_columns = messages.c["id", "text", "channel", "time"]  # the fields of `Message`

# Earlier texts of messages.
message_history = sa.Table(
    "message_history",
    metadata,
    sa.Column("id", _Text, nullable=False),
    sa.Column("text", _Text, nullable=False),
    sa.Column("replaced_at", UtcTime, nullable=False),
    sa.Index("message_history_by_id", "id"),
)

# The fields of `curation.TextFacts`, for every text ever imported.
texts = sa.Table(
    "texts",
    metadata,
    sa.Column("fingerprint", _Fingerprint, primary_key=True),
    sa.Column("language", _Text, nullable=False),
    sa.Column("template", _Fingerprint),
    sa.Column("mentioned", _Fingerprint),
    sa.Index("texts_by_template", "template", "mentioned"),
)

scores = sa.Table(
    "scores",
    metadata,
    sa.Column("model", _Text, primary_key=True),
    sa.Column("fingerprint", _Fingerprint, primary_key=True),
    sa.Column("score", sa.Float(53), nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("scores_by_rank", scores.c.model, scores.c.score.desc(), scores.c.fingerprint)

models = sa.Table(
    "models",
    metadata,
    sa.Column("tag", _Text, primary_key=True),
    sa.Column("threshold", sa.Float(53), nullable=False),  # decisions outlive the model's files
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("completed_at", UtcTime),
)

# The imported part of the raw tables in a chat dump; the fields of `sqlite_dump.Extent`.
dump_extents = sa.Table(
    "dump_extents",
    metadata,
    sa.Column("raw_table", _Text, primary_key=True),
    sa.Column("last_row", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("characters", sa.BigInteger, nullable=False),
)

# How far a live source was followed, in a form that only the source knows.
watch_positions = sa.Table(
    "watch_positions",
    metadata,
    sa.Column("source", _Text, primary_key=True),
    sa.Column("position", _Text, nullable=False),
)

_NOTICE_MENTIONS = 3  # a template sent to as many users is a bot's notice


def _curated() -> sa.Select[Any]:
    """Select one message for each text, without notices of bots."""
    notices = (
        sa.select(texts.c.template)
        .where(texts.c.template.is_not(None))
        .group_by(texts.c.template)
        .having(sa.func.count(texts.c.mentioned.distinct()) >= _NOTICE_MENTIONS)
    )
    distinct = (
        sa.select(sa.func.min(messages.c.id).label("id"), sa.func.count().label("copies"))
        .group_by(messages.c.fingerprint)
        .subquery("distinct_messages")
    )
    return (
        sa.select(*message_columns, messages.c.fingerprint, texts.c.language, distinct.c.copies)
        .join(distinct, distinct.c.id == messages.c.id)
        .join(texts, texts.c.fingerprint == messages.c.fingerprint)
        .where(texts.c.template.is_(None) | texts.c.template.not_in(notices))
    )


curated_messages = CreateView(_curated(), "curated_messages", metadata=metadata).table


def upsert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT of the connection's dialect, which has ON CONFLICT clauses."""
    is_sqlite = connection.dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)
