"""Migrations of the message store, by Alembic: from the schema of any earlier version to this."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from feedsieve.store.schema import REVISION

_FOLDER = Path(__file__).parent

logging.getLogger("alembic").setLevel(logging.WARNING)


def is_known(revision: str) -> bool:
    """Return whether this version of feedsieve has a revision of this name."""
    revisions = ScriptDirectory(str(_FOLDER)).walk_revisions()
    return revision in {script.revision for script in revisions}


def upgrade(connection: Connection, revision: str = REVISION) -> None:
    """Bring the tables to `revision` within the transaction of `connection`."""
    command.upgrade(_config(connection), revision)


def stamp(connection: Connection) -> None:
    """Record that the tables are those of `REVISION`."""
    command.stamp(_config(connection), REVISION)


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
