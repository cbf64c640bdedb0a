"""The message store: messages, their scores by each model, and the feed."""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine, and_, bindparam, exists, func, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from feedsieve.message import Message, StoreUnavailable
from feedsieve.sources.chats import sqlite_dump
from feedsieve.store.curation import facts_by_fingerprint
from feedsieve.store.database import (
    find_database,
    is_lock,
    open_database,
    unavailable,
    without_password,
)
from feedsieve.store.deletion import delete_message
from feedsieve.store.deployments import DeploymentMethods
from feedsieve.store.dump_import import import_dump, unread_tables
from feedsieve.store.feed import Cursor, FeedPage, model_to_show, read_page
from feedsieve.store.ingest import (
    ImportCounts,
    Progress,
    Stored,
    import_messages,
    store_messages,
)
from feedsieve.store.keys import KeyMethods
from feedsieve.store.label_methods import LabelMethods
from feedsieve.store.sampling import sample
from feedsieve.store.schema import (
    messages,
    models,
    scores,
    select_messages,
    upsert,
    watch_positions,
)
from feedsieve.store.shadows import ShadowMethods
from feedsieve.store.state_methods import StateMethods, file_id
from feedsieve.text import route_id

_log = logging.getLogger("feedsieve")
_FILE_ERRORS = OSError, sqlite3.Error


@dataclass(frozen=True, slots=True)
class Post:
    """A message's current text, and the time in UTC from which on it has it."""

    id: str
    fingerprint: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Scored:
    """A message and its score by a model, 0 to 1; None if the model has not scored it."""

    message: Message
    score: float | None


class MessageStore(LabelMethods, KeyMethods, DeploymentMethods, ShadowMethods, StateMethods):
    """Messages and their scores in one database, which threads and processes may share.

    Every method raises StoreUnavailable, and writes nothing, if the database is gone, full, damaged
    or locked for more than a minute.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._version_connection: Connection | None = None
        self._file = file_id(engine)
        self.write_failure = None
        self.location = without_password(engine.url.render_as_string(hide_password=False))

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        state_folder: Path | None = None,
        progress: Progress | None = None,
        may_be_read_only: bool = False,
    ) -> Self:
        """Open the store at a path, or an SQLAlchemy URL of SQLite or PostgreSQL; create it if new.

        Import the new raw messages if the file is a chat dump, and leave its raw tables unchanged.
        The store of a read-only dump is a file in `state_folder`, by default that of the settings.
        Another read-only file is refused unless it `may_be_read_only`.
        """
        try:
            url, dump = find_database(location, state_folder, may_be_read_only=may_be_read_only)
            store = cls(open_database(url))
        except (
            StoreUnavailable,
            RuntimeError,
            ImportError,
            SQLAlchemyError,
            *_FILE_ERRORS,
        ) as error:
            raise unavailable(location, error) from error
        if dump is not None:
            try:
                store._import_dump(dump, progress)
            except BaseException as error:
                store.close()
                if isinstance(error, _FILE_ERRORS):
                    raise unavailable(location, error) from error
                raise
        return store

    def close(self) -> None:
        """Close the connections that no thread is using."""
        if self._version_connection:
            self._version_connection.close()
        self._engine.dispose()

    def is_replaced(self) -> bool:
        """Return whether the path now leads to another file than the one opened."""
        file = file_id(self._engine)
        return file is not None and file != self._file

    def version(self) -> int | None:
        """Return a counter that changes whenever any process writes to the database.

        None for PostgreSQL, which has none. Call it from one thread.
        """
        if self._engine.dialect.name != "sqlite":
            return None
        try:
            if self._version_connection is None:  # SQLite counts for each connection
                self._version_connection = self._engine.connect()
            with self._version_connection.begin():
                pragma = "PRAGMA data_version"
                return int(self._version_connection.exec_driver_sql(pragma).scalar_one())
        except (DBAPIError, TimeoutError) as error:
            raise unavailable(self.location, error) from error

    def add(
        self,
        messages: Iterable[Message],
        progress: Progress | None = None,
        *,
        is_update: bool = True,
    ) -> ImportCounts:
        """Store all messages or none; return how many were new, changed and unchanged.

        A message is known by its source and its identifier there. A new text replaces the old one,
        which goes into the history. An identifier that a message of another source has becomes
        `SOURCE:IDENTIFIER`. Repeating an import changes nothing. Deleted messages are skipped.

        Raises ValueError for a message without identifier or text; and without `is_update`
        SourceConflict if two sources seem to share a name.
        """
        with self._transaction(writes=True) as connection:
            return import_messages(connection, messages, progress, is_update=is_update)

    def save_messages(self, batch: Sequence[Message]) -> list[Stored]:
        """Store messages as `add` does; return the outcome of each, in their order."""
        facts = facts_by_fingerprint(message.text for message in batch)  # while others may write
        with self._transaction(writes=True) as connection:
            return store_messages(connection, batch, facts)

    def delete(self, identifier: str, who: str) -> bool:
        """Delete a message, its earlier texts, labels and scores; return whether it was there.

        Scores stay if another message has the same text. Later imports skip the message; the raw
        tables of a dump are not changed. `who` is recorded as the one who deleted it.
        """
        with self._transaction(writes=True) as connection:
            return delete_message(connection, route_id(identifier), who)

    def get(self, identifier: str) -> Message | None:
        """Return a message, or None if no message has this identifier."""
        statement = select_messages().where(messages.c.id == route_id(identifier))
        with self._transaction() as connection:
            row = connection.execute(statement).one_or_none()
        return Message(*row) if row else None

    def count(self) -> int:
        """Return the number of messages."""
        with self._transaction() as connection:
            return connection.execute(select(func.count()).select_from(messages)).scalar_one()

    def read_all(self) -> list[Message]:
        """Return every message, by identifier."""
        statement = select_messages().order_by(messages.c.id)
        with self._transaction() as connection:
            return [Message(*row) for row in connection.execute(statement)]

    def posts(self) -> list[Post]:
        """Return a post for each message, oldest first, by its time or else that of its import."""
        time = func.coalesce(messages.c.time, messages.c.seen_at).label("time")
        columns = messages.c.id, messages.c.fingerprint, time
        statement = select(*columns).order_by(time, messages.c.id)
        with self._transaction() as connection:
            return [Post(*row) for row in connection.execute(statement)]

    def sample(self, limit: int) -> list[str]:
        """Return `limit` different identifiers at random, or all in random order if fewer exist.

        Raises ValueError for a negative limit.
        """
        if limit < 0:
            raise ValueError(f"limit is {limit}; it must not be negative")
        with self._transaction() as connection:
            return sample(connection, limit)

    def unscored(
        self, model: str, limit: int, after: str = "", before: str = "g"
    ) -> list[tuple[str, str]]:
        """Return up to `limit` fingerprints that the model has not scored, each with its text.

        They are in order, follow the fingerprint `after` and precede `before`: pass the last one of
        the previous call to go through the store once.
        """
        has_score = exists().where(
            scores.c.model == model, scores.c.fingerprint == messages.c.fingerprint
        )
        missing = (
            select(messages.c.fingerprint, func.min(messages.c.id).label("id"))
            .where(messages.c.fingerprint > after, messages.c.fingerprint < before, ~has_score)
            .group_by(messages.c.fingerprint)
            .order_by(messages.c.fingerprint)
            .limit(limit)
            .subquery()
        )
        statement = (
            select(missing.c.fingerprint, messages.c.text)
            .join(messages, messages.c.id == missing.c.id)
            .order_by(missing.c.fingerprint)
        )
        with self._transaction() as connection:
            return [(row.fingerprint, row.text) for row in connection.execute(statement)]

    def start_model(self, model: str, threshold: float) -> None:
        """Register a model and its threshold, 0 to 1, unless it is registered.

        Raises ValueError for a bad threshold.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} is not from 0 to 1")
        with self._transaction() as connection:  # does not wait for a writer
            if connection.execute(select(models.c.tag).where(models.c.tag == model)).first():
                return
        row = {"tag": model, "threshold": threshold, "started_at": datetime.now(UTC)}
        with self._transaction(writes=True) as connection:
            connection.execute(upsert(connection, models).on_conflict_do_nothing(), row)

    def save_scores(self, model: str, scored: Sequence[tuple[str, float]]) -> None:
        """Store a registered model's scores, 0 to 1, by fingerprint; never replace one.

        Raises ValueError for a score out of range.
        """
        rows = []
        for fingerprint, score in scored:
            if not 0 <= score <= 1:
                raise ValueError(f"score {score} is not from 0 to 1")
            rows.append({"model": model, "fingerprint": fingerprint, "score": float(score)})
        if not rows:
            return
        with self._transaction(writes=True) as connection:
            connection.execute(upsert(connection, scores).on_conflict_do_nothing(), rows)

    def find(self, model: str, identifiers: Sequence[str]) -> dict[str, Scored]:
        """Return the messages of these identifiers that exist, by identifier, with their scores."""
        names = list({route_id(identifier) for identifier in identifiers})
        with self._transaction() as connection:
            rows = connection.execute(_FIND, {"model": model, "identifiers": names}).all()
        return {row.id: Scored(Message(*row[:-1]), row.score) for row in rows}

    def scores_by(self, model: str) -> dict[str, float]:
        """Return all scores of a model, 0 to 1, by fingerprint."""
        statement = select(scores.c.fingerprint, scores.c.score).where(scores.c.model == model)
        with self._transaction() as connection:
            return {row.fingerprint: row.score for row in connection.execute(statement)}

    def mark_complete(self, model: str) -> None:
        """Record that a registered model has now scored every message."""
        with self._transaction(writes=True) as connection:
            connection.execute(
                update(models).where(models.c.tag == model).values(completed_at=datetime.now(UTC))
            )

    def shown_model(self, current: str) -> str:
        """Return the model whose feed to show while `current` may still be scoring.

        That is `current` once it was complete, whatever was imported since; before that the model
        that was marked complete last; `current` if none ever was.
        """
        with self._transaction() as connection:
            return model_to_show(connection, current)

    def feed(self, model: str, limit: int, after: Cursor | None = None) -> FeedPage:
        """Return a page of up to `limit` messages by falling score, equal ones by fingerprint.

        Messages with the same text are one item, which shows the smallest identifier. The page
        after a cursor is of the cursor's model, whatever `model` is. Scores stored between two
        pages may shift ranks; no item is shown twice.

        Raises ValueError for a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        with self._transaction() as connection:
            return read_page(connection, model, limit, after)

    def position(self, source: str) -> str | None:
        """Return how far a live source was followed, or None if it never was."""
        statement = select(watch_positions.c.position).where(watch_positions.c.source == source)
        with self._transaction() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def save_position(self, source: str, position: str) -> None:
        """Store how far a live source was followed. Call it after `add` has returned."""
        row = {"source": source, "position": position}
        with self._transaction(writes=True) as connection:
            statement = upsert(connection, watch_positions).values(row)
            connection.execute(statement.on_conflict_do_update(index_elements=["source"], set_=row))

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        if writes:
            self.check_file()
        try:
            with (
                self._engine.connect().execution_options(writes=writes) as connection,
                connection.begin(),
            ):
                yield connection
        except (DBAPIError, TimeoutError) as error:
            failure = unavailable(self.location, error)
            if writes and not is_lock(error):
                self.write_failure = failure.reason
            raise failure from error
        if writes:
            self.write_failure = None

    def _import_dump(self, path: Path, progress: Progress | None) -> None:
        with sqlite_dump.open_read_only(path) as source:
            with self._transaction() as connection:
                if not unread_tables(connection, source):
                    return
            _log.info("importing messages from %s", path)
            with self._transaction(writes=True) as connection:
                counts, skipped = import_dump(connection, source, progress)
            _log.info("imported %s: %s, empty: %d", path, counts, skipped)


# Built once: SQLAlchemy takes longer for that than the database takes to answer.
_FIND = (
    select_messages(scores.c.score)
    .outerjoin(
        scores,
        and_(scores.c.model == bindparam("model"), scores.c.fingerprint == messages.c.fingerprint),
    )
    .where(messages.c.id.in_(bindparam("identifiers", expanding=True)))
)
