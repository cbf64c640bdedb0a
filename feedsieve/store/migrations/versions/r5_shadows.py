"""Shadows: the model that is compared with the one in service, and the scores of both."""

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import Fingerprint, Text, UtcTime

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Create the new tables."""
    op.create_table(
        "shadows",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("tag", Text),
        sa.Column("share", sa.Float(53), nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("who", Text, nullable=False),
    )
    op.create_table(
        "shadow_outcomes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("server", Text, primary_key=True),
        sa.Column("reason", Text),
        sa.Column("time", UtcTime, nullable=False),
    )
    op.create_table(
        "shadow_pairs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("model", Text, nullable=False),
        sa.Column("shadow", Text, nullable=False),
        sa.Column("fingerprint", Fingerprint, nullable=False),
        sa.Column("score", sa.Float(53), nullable=False),
        sa.Column("shadow_score", sa.Float(53), nullable=False),
        sa.Column("is_positive", sa.Boolean, nullable=False),
        sa.Column("shadow_is_positive", sa.Boolean, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
    )
    op.create_index(
        "shadow_pairs_by_text", "shadow_pairs", ["fingerprint", "model", "shadow"], unique=True
    )
