"""Alembic runs this file for each command."""

from alembic import context

from feedsieve.store.schema import revisions

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=revisions.name)
context.run_migrations()
