"""Deployments: the model that servers are to serve."""

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import Text, UtcTime

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Create the new tables."""
    op.create_table(
        "deployments",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("tag", Text),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("who", Text, nullable=False),
    )
    op.create_table(
        "deployment_outcomes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("server", Text, primary_key=True),
        sa.Column("outcome", Text, nullable=False),
        sa.Column("model", Text, nullable=False),
        sa.Column("reason", Text),
        sa.Column("time", UtcTime, nullable=False),
    )
