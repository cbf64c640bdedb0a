"""API keys."""

import sqlalchemy as sa
from alembic import op

from feedsieve.store.schema import Text, UtcTime

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Create the table of API keys."""
    op.create_table(
        "api_keys",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", Text, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("last_used_at", UtcTime),
        sa.Column("revoked_at", UtcTime),
    )
    is_valid = sa.text("revoked_at IS NULL")
    op.create_index(
        "api_keys_by_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=is_valid,
        postgresql_where=is_valid,
    )
