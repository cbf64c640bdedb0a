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
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Fingerprint = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")

REVISION = "5"
"""The revision of this schema in feedsieve/store/migrations."""

metadata = sa.MetaData()

# Alembic's table, of a name of our own: another program may share the database.
revisions = sa.Table("feedsieve_revision", sa.MetaData(), sa.Column("version_num", sa.String(32)))

# Chats, feeds and files. `key` never changes, `title` may: see feedsieve/sources/keys.py.
sources = sa.Table(
    "sources",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("key", Text, nullable=False, unique=True),
    sa.Column("title", Text),
    sa.Column("seen_at", UtcTime, nullable=False),  # when its first message was imported
)

# `id` is the identifier in routes; `source` and `source_id` say which message it is.
messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("source", sa.ForeignKey("sources.number"), nullable=False),
    sa.Column("source_id", Text, nullable=False),
    sa.Column("text", Text, nullable=False),
    sa.Column("time", UtcTime),
    sa.Column("sender", Text),
    sa.Column("link", Text),
    sa.Column("reply_to", Text),  # the source_id of another message
    sa.Column("edited", UtcTime),
    sa.Column("fingerprint", Fingerprint, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),  # when this text was imported
    sa.Index("messages_by_fingerprint", "fingerprint", "id"),
    sa.Index("messages_by_source", "source", "source_id", unique=True),
)
# The fields of `Message`, of `messages` joined with `sources`.
message_columns = (
    messages.c.id,
    messages.c.text,
    sources.c.title.label("channel"),
    messages.c.time,
    sources.c.key.label("source"),
    messages.c.sender,
    messages.c.link,
    messages.c.reply_to,
    messages.c.edited,
)

# Earlier texts of messages.
message_history = sa.Table(
    "message_history",
    metadata,
    sa.Column("id", Text, nullable=False),
    sa.Column("text", Text, nullable=False),
    sa.Column("replaced_at", UtcTime, nullable=False),
    sa.Index("message_history_by_id", "id"),
)

# Every label that a person gave, oldest first; the last one of a person counts.
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("message", Text, nullable=False),  # its id
    sa.Column("fingerprint", Fingerprint, nullable=False),  # of the text that was labelled
    sa.Column("label", Text),  # positive or negative; null: withdrawn
    sa.Column("who", Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("origin", Text, nullable=False),  # label-studio, a file's name, feed, ...
    sa.Column("note", Text),
    sa.Column("is_ground_truth", sa.Boolean, nullable=False),
    sa.Index("labels_by_message", "message", "who"),
)

# Deleted messages, without their texts: a later import skips them.
deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("source", Text, primary_key=True),  # its key
    sa.Column("source_id", Text, primary_key=True),
    sa.Column("id", Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("who", Text, nullable=False),
)

# Positions up to which watched sources have been read.
watch_positions = sa.Table(
    "watch_positions",
    metadata,
    sa.Column("source", Text, primary_key=True),
    sa.Column("position", Text, nullable=False),
)

# Models that were deployed, oldest first; the last one is wanted. A null tag stands for what each
# server's FEEDSIEVE_MODEL names.
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("tag", Text),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("who", Text, nullable=False),
)

# Each server's answer to the last deployment.
deployment_outcomes = sa.Table(
    "deployment_outcomes",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # of the deployment
    sa.Column("server", Text, primary_key=True),
    sa.Column("outcome", Text, nullable=False),  # done or refused
    sa.Column("model", Text, nullable=False),  # that it serves
    sa.Column("reason", Text),
    sa.Column("time", UtcTime, nullable=False),
)

# Models that were to be compared with the served one, oldest first; the last one is wanted. A null
# tag stands for none.
shadows = sa.Table(
    "shadows",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("tag", Text),
    sa.Column("share", sa.Float(53), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("who", Text, nullable=False),
)

# Each server's answer to the last shadow.
shadow_outcomes = sa.Table(
    "shadow_outcomes",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # of the shadow
    sa.Column("server", Text, primary_key=True),
    sa.Column("reason", Text),  # why it does not score with it; null: it does
    sa.Column("time", UtcTime, nullable=False),
)

# Scores and decisions of the served model and of its shadow, a row for each text.
shadow_pairs = sa.Table(
    "shadow_pairs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("model", Text, nullable=False),
    sa.Column("shadow", Text, nullable=False),
    sa.Column("fingerprint", Fingerprint, nullable=False),
    sa.Column("score", sa.Float(53), nullable=False),
    sa.Column("shadow_score", sa.Float(53), nullable=False),
    sa.Column("is_positive", sa.Boolean, nullable=False),
    sa.Column("shadow_is_positive", sa.Boolean, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Index("shadow_pairs_by_text", "fingerprint", "model", "shadow", unique=True),
)

# The fields of `curation.TextFacts`, for every text ever imported.
texts = sa.Table(
    "texts",
    metadata,
    sa.Column("fingerprint", Fingerprint, primary_key=True),
    sa.Column("language", Text, nullable=False),
    sa.Column("template", Fingerprint),
    sa.Column("mentioned", Fingerprint),
    sa.Index("texts_by_template", "template", "mentioned"),
)

scores = sa.Table(
    "scores",
    metadata,
    sa.Column("model", Text, primary_key=True),
    sa.Column("fingerprint", Fingerprint, primary_key=True),
    sa.Column("score", sa.Float(53), nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("scores_by_rank", scores.c.model, scores.c.score.desc(), scores.c.fingerprint)

models = sa.Table(
    "models",
    metadata,
    sa.Column("tag", Text, primary_key=True),
    sa.Column("threshold", sa.Float(53), nullable=False),  # decisions outlive the model's files
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("completed_at", UtcTime),
)

# The imported part of the raw tables in a chat dump; the fields of `sqlite_dump.Extent`. The digest
# is in the column of earlier versions' number of characters: where that is, the dump is read again.
dump_extents = sa.Table(
    "dump_extents",
    metadata,
    sa.Column("raw_table", Text, primary_key=True),
    sa.Column("last_row", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("characters", sa.BigInteger, key="digest", nullable=False),
)

# API keys: hashes of them, with what they allow. Keys of one name follow each other.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("scopes", Text, nullable=False),  # separated by spaces
    sa.Column("requests_per_minute", sa.Integer),  # null: no limit
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("last_used_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
)
sa.Index(
    "api_keys_by_name",
    api_keys.c.name,
    unique=True,
    sqlite_where=api_keys.c.revoked_at.is_(None),
    postgresql_where=api_keys.c.revoked_at.is_(None),
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
        .select_from(messages)
        .join(distinct, distinct.c.id == messages.c.id)
        .join(sources, sources.c.number == messages.c.source)
        .join(texts, texts.c.fingerprint == messages.c.fingerprint)
        .where(texts.c.template.is_(None) | texts.c.template.not_in(notices))
    )


curated_view = CreateView(_curated(), "curated_messages", metadata=metadata)
curated_messages = curated_view.table


def select_messages(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Return a SELECT of the fields of `Message`, and `more`, of all messages."""
    statement = sa.select(*message_columns, *more).select_from(messages)
    return statement.join(sources, sources.c.number == messages.c.source)


def upsert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT of the connection's dialect, which has ON CONFLICT clauses."""
    is_sqlite = connection.dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)
