"""The tables as they were before sources; stores made earlier lack some of them."""

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import Fingerprint, Text, UtcTime

revision = "1"
down_revision = None


def upgrade() -> None:
    """Create the tables that are missing."""
    metadata = sa.MetaData()
    sa.Table(
        "messages",
        metadata,
        sa.Column("id", Text, primary_key=True),
        sa.Column("text", Text, nullable=False),
        sa.Column("channel", Text),
        sa.Column("time", UtcTime),
        sa.Column("fingerprint", Fingerprint, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
        sa.Index("messages_by_fingerprint", "fingerprint", "id"),
    )
    sa.Table(
        "message_history",
        metadata,
        sa.Column("id", Text, nullable=False),
        sa.Column("text", Text, nullable=False),
        sa.Column("replaced_at", UtcTime, nullable=False),
        sa.Index("message_history_by_id", "id"),
    )
    sa.Table(
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
    sa.Table(
        "models",
        metadata,
        sa.Column("tag", Text, primary_key=True),
        sa.Column("threshold", sa.Float(53), nullable=False),
        sa.Column("started_at", UtcTime, nullable=False),
        sa.Column("completed_at", UtcTime),
    )
    sa.Table(
        "dump_extents",
        metadata,
        sa.Column("raw_table", Text, primary_key=True),
        sa.Column("last_row", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("characters", sa.BigInteger, nullable=False),
    )
    metadata.create_all(op.get_bind())
