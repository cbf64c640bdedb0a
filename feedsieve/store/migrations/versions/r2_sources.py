"""Sources, labels and deletions: a message is known by its source and its id there."""

import re
from typing import Any

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import Fingerprint, Text, UtcTime

revision = "2"
down_revision = "1"

_BATCH = 5000  # messages
_IN_FULL_EXPORT = re.compile(r"(\d+):(-?\d+)", re.ASCII)  # chat and message, as earlier imported


def upgrade() -> None:
    """Create the new tables, and give each message a source."""
    connection = op.get_bind()
    op.execute("DROP VIEW IF EXISTS curated_messages")
    op.rename_table("messages", "earlier_messages")
    op.drop_index("messages_by_fingerprint", "earlier_messages")
    metadata = sa.MetaData()
    sources = sa.Table(
        "sources",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("key", Text, nullable=False, unique=True),
        sa.Column("title", Text),
        sa.Column("seen_at", UtcTime, nullable=False),
    )
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
        sa.Column("reply_to", Text),
        sa.Column("edited", UtcTime),
        sa.Column("fingerprint", Fingerprint, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
        sa.Index("messages_by_fingerprint", "fingerprint", "id"),
        sa.Index("messages_by_source", "source", "source_id", unique=True),
    )
    sa.Table(
        "labels",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("message", Text, nullable=False),
        sa.Column("fingerprint", Fingerprint, nullable=False),
        sa.Column("label", Text),
        sa.Column("who", Text, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("origin", Text, nullable=False),
        sa.Column("note", Text),
        sa.Column("is_ground_truth", sa.Boolean, nullable=False),
        sa.Index("labels_by_message", "message", "who"),
    )
    sa.Table(
        "deletions",
        metadata,
        sa.Column("source", Text, primary_key=True),
        sa.Column("source_id", Text, primary_key=True),
        sa.Column("id", Text, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("who", Text, nullable=False),
    )
    sa.Table(
        "watch_positions",
        metadata,
        sa.Column("source", Text, primary_key=True),
        sa.Column("position", Text, nullable=False),
    )
    metadata.create_all(connection)
    _copy_messages(connection, sources, messages)
    op.drop_table("earlier_messages")


def _copy_messages(connection: sa.Connection, sources: sa.Table, messages: sa.Table) -> None:
    earlier = sa.table(
        "earlier_messages",
        *(sa.column(name) for name in ("id", "text", "channel", "fingerprint")),
        sa.column("time", UtcTime),
        sa.column("seen_at", UtcTime),
    )
    numbers: dict[str, int] = {}
    taken: set[tuple[int, str]] = set()
    after = ""
    page = sa.select(earlier).order_by(earlier.c.id).limit(_BATCH)
    while rows := connection.execute(page.where(earlier.c.id > after)).mappings().all():
        copies: list[dict[str, Any]] = []
        for row in rows:
            key, source_id = _identity(row["id"], row["channel"])
            if key not in numbers:
                values = {"key": key, "title": row["channel"], "seen_at": row["seen_at"]}
                statement = sources.insert().values(values).returning(sources.c.number)
                numbers[key] = connection.execute(statement).scalar_one()
            if (numbers[key], source_id) in taken:
                source_id = row["id"]
            taken.add((numbers[key], source_id))
            fields = {name: row[name] for name in ("id", "text", "time", "fingerprint", "seen_at")}
            copies.append(fields | {"source": numbers[key], "source_id": source_id})
        connection.execute(messages.insert(), copies)
        after = rows[-1]["id"]


def _identity(identifier: str, channel: str | None) -> tuple[str, str]:
    """Return the source's key and the id there of a message that was imported without a source.

    Its id was `CHAT:MESSAGE` in an export of several chats, and otherwise `CHANNEL:MESSAGE` if a
    message of another channel had the same one.
    """
    if identifier.startswith(prefix := f"{channel or ''}:") and len(identifier) > len(prefix):
        source_id = identifier[len(prefix) :]
    elif channel and (match := _IN_FULL_EXPORT.fullmatch(identifier)):
        return f"telegram:?:{match[1]}", match[2]
    else:
        source_id = identifier
    return (f"name:{channel}" if channel else ""), source_id
