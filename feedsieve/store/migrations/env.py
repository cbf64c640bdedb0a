"""Alembic runs this file, as a module of another name, for each command."""

from alembic import context

from feedsieve.store.schema import revisions

if __name__ == "env_py":
    context.configure(
        connection=context.config.attributes["connection"], version_table=revisions.name
    )
    context.run_migrations()
