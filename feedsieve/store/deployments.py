"""Deployments: the model that servers are to serve, and what each of them made of it."""

import sqlite3
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, create_engine, delete, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from feedsieve.errors import FeedsieveError
from feedsieve.message import StoreUnavailable
from feedsieve.store.database import find_database
from feedsieve.store.schema import deployment_outcomes, deployments, upsert

Outcome = Literal["done", "refused"]
_PEEK_SECONDS = 3  # to connect, or to wait for a lock, before a server starts without


class NothingToGoBackTo(FeedsieveError):
    """No other model was deployed before."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that was wanted from some time on."""

    number: int  # from 1
    tag: str | None  # of the classifier, exact; None: what each server's FEEDSIEVE_MODEL names
    time: datetime
    who: str


@dataclass(frozen=True, slots=True)
class DeploymentOutcome:
    """A server's answer to a deployment."""

    server: str
    outcome: Outcome
    model: str  # the tag that it serves
    reason: str | None  # why it refused
    time: datetime


class DeploymentMethods:
    """The methods of the message store that are about deployments.

    Every method raises StoreUnavailable as those of `MessageStore` do.
    """

    @abstractmethod
    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[Connection]: ...

    def deployments(self) -> list[Deployment]:
        """Return all deployments, the newest first."""
        with self._transaction() as connection:
            return _read(connection)

    def wanted(self) -> Deployment | None:
        """Return the last deployment, or None if there was none."""
        with self._transaction() as connection:
            return next(iter(_read(connection, 1)), None)

    def deploy(self, tag: str | None, who: str) -> Deployment:
        """Store that servers are to serve `tag`, and forget their answers to earlier ones."""
        with self._transaction(writes=True) as connection:
            return _add(connection, tag, who)

    def roll_back(self, who: str) -> Deployment:
        """Deploy the model that was wanted before the present one. Raises NothingToGoBackTo."""
        with self._transaction(writes=True) as connection:
            return _add(connection, previous(_read(connection)), who)

    def save_outcome(self, number: int, outcome: DeploymentOutcome) -> None:
        """Store a server's answer to the deployment `number`; replace its earlier one."""
        row = {name: getattr(outcome, name) for name in DeploymentOutcome.__dataclass_fields__}
        with self._transaction(writes=True) as connection:
            statement = upsert(connection, deployment_outcomes).values(row | {"number": number})
            connection.execute(
                statement.on_conflict_do_update(index_elements=["number", "server"], set_=row)
            )

    def deployment_outcomes(self, number: int) -> list[DeploymentOutcome]:
        """Return the servers' answers to the deployment `number`, by name."""
        columns = [deployment_outcomes.c[name] for name in DeploymentOutcome.__dataclass_fields__]
        statement = (
            select(*columns)
            .where(deployment_outcomes.c.number == number)
            .order_by(deployment_outcomes.c.server)
        )
        with self._transaction() as connection:
            return [DeploymentOutcome(*row) for row in connection.execute(statement)]


def previous(newest_first: Sequence[Deployment]) -> str | None:
    """Return the tag that was wanted before the present one; before the first, that is None.

    Raises NothingToGoBackTo.
    """
    tags = [one.tag for one in newest_first] + [None]
    for tag in tags[1:]:
        if tag != tags[0]:
            return tag
    raise NothingToGoBackTo("no other model was deployed before, so there is none to go back to")


def peek_wanted(location: str | Path, state_folder: Path | None) -> Deployment | None:
    """Return the last deployment of a store without opening it as one: nothing is imported.

    None if there was none, and if the database is absent or cannot be read in seconds.
    """
    try:
        url, _dump = find_database(location, state_folder)
        is_sqlite = url.get_backend_name() == "sqlite"
        if is_sqlite and not Path(str(url.database)).exists():
            return None
        limit = "timeout" if is_sqlite else "connect_timeout"
        engine = create_engine(url, connect_args={limit: _PEEK_SECONDS})
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table(deployments.name):
                    return None
                return next(iter(_read(connection, 1)), None)
        finally:
            engine.dispose()
    except (StoreUnavailable, SQLAlchemyError, sqlite3.Error, OSError, ImportError):
        return None  # opening the store reports it


def _read(connection: Connection, limit: int | None = None) -> list[Deployment]:
    statement = select(deployments).order_by(deployments.c.number.desc()).limit(limit)
    return [Deployment(*row) for row in connection.execute(statement)]


def _add(connection: Connection, tag: str | None, who: str) -> Deployment:
    now = datetime.now(UTC)
    connection.execute(delete(deployment_outcomes))
    statement = insert(deployments).values(tag=tag, time=now, who=who)
    number = connection.execute(statement.returning(deployments.c.number)).scalar_one()
    return Deployment(number, tag, now, who)
