"""The tables as they were before sources; stores made earlier lack some of them."""

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import UtcTime

revision = "1"
down_revision = None

_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_Fingerprint = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables that are missing."""
    metadata = sa.MetaData()
    sa.Table(
        "messages",
        metadata,
        sa.Column("id", _Text, primary_key=True),
        sa.Column("text", _Text, nullable=False),
        sa.Column("channel", _Text),
        sa.Column("time", UtcTime),
        sa.Column("fingerprint", _Fingerprint, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
        sa.Index("messages_by_fingerprint", "fingerprint", "id"),
    )
    sa.Table(
        "message_history",
        metadata,
        sa.Column("id", _Text, nullable=False),
        sa.Column("text", _Text, nullable=False),
        sa.Column("replaced_at", UtcTime, nullable=False),
        sa.Index("message_history_by_id", "id"),
    )
    sa.Table(
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
    sa.Table(
        "models",
        metadata,
        sa.Column("tag", _Text, primary_key=True),
        sa.Column("threshold", sa.Float(53), nullable=False),
        sa.Column("started_at", UtcTime, nullable=False),
        sa.Column("completed_at", UtcTime),
    )
    sa.Table(
        "dump_extents",
        metadata,
        sa.Column("raw_table", _Text, primary_key=True),
        sa.Column("last_row", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("characters", sa.BigInteger, nullable=False),
    )
    metadata.create_all(op.get_bind())
