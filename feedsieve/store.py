"""The message store: messages, their scores by each model, and the feed that the two make."""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    and_,
    bindparam,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from feedsieve import dump
from feedsieve.cursor import Cursor, FeedItem, FeedPage
from feedsieve.database import find_database, open_database, shown
from feedsieve.intake import ImportCounts, Progress, take_all, take_dump, unread
from feedsieve.message import Message, StoreUnavailable
from feedsieve.sampling import sample
from feedsieve.schema import messages, models, scores, upsert
from feedsieve.text import storable

__all__ = [
    "Cursor",
    "FeedItem",
    "FeedPage",
    "ImportCounts",
    "Message",
    "MessageStore",
    "Post",
    "Scored",
    "StoreUnavailable",
]

_log = logging.getLogger("feedsieve")


@dataclass(frozen=True, slots=True)
class Post:
    """That a message says what it says since a moment, in UTC."""

    id: str
    fingerprint: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Scored:
    """A message, and a model's score of it, from 0 to 1, if it has scored it."""

    message: Message
    score: float | None


class MessageStore:
    """Messages and their scores in one database. Threads and processes may share it.

    Every method raises StoreUnavailable if the database fails: it is gone, full, damaged, or
    locked for more than a minute. What was being written is then not written at all.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watching: Connection | None = None
        self._file = _file_of(engine)
        self.location = shown(engine.url.render_as_string(hide_password=False))

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        state_folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Open the store at a path, or an SQLAlchemy URL of SQLite or PostgreSQL; make it if new.

        If the file is a chat dump its raw messages are imported, and those that came since the
        last time; the raw tables stay as they are. A dump that may not be written is not touched:
        its store is kept in `state_folder`, by default that of the settings, and the log
        warns of it.

        Raises StoreUnavailable.
        """
        try:
            url, source = find_database(location, state_folder)
            store = cls(open_database(url))
        except (RuntimeError, OSError, sqlite3.Error, SQLAlchemyError, ImportError) as error:
            raise _unavailable(location, error) from error
        if source is not None:
            try:
                store._import_dump(source, progress)
            except (OSError, sqlite3.Error) as error:
                raise _unavailable(location, error) from error
        return store

    def close(self) -> None:
        """Close the connections that no thread is using."""
        if self._watching:
            self._watching.close()
        self._engine.dispose()

    def is_replaced(self) -> bool:
        """Return whether another file has come into the place of the one that was opened."""
        now = _file_of(self._engine)
        return now is not None and now != self._file

    def version(self) -> int | None:
        """Return a number that is another one once anything was written, by whatever process.

        None if the database has no such number: PostgreSQL. To be called from one thread.
        """
        if self._engine.dialect.name != "sqlite":
            return None
        try:
            if self._watching is None:  # the number is one of this connection's own
                self._watching = self._engine.connect()
            with self._watching.begin():
                return self._watching.exec_driver_sql("PRAGMA data_version").scalar_one()
        except (DBAPIError, TimeoutError) as error:
            raise _unavailable(self.location, error) from error

    def add(self, messages: Iterable[Message], progress: Progress | None = None) -> ImportCounts:
        """Store messages, all or none of them, and return what became of them.

        A new text for a known identifier replaces the old one, which goes into the history. If the
        identifier belongs to a message of another channel, or of an unknown one and the texts
        differ, the new message is stored as `CHANNEL:IDENTIFIER`, without channel `:IDENTIFIER`.
        The same import a second time changes nothing.

        Raises ValueError for a message without identifier or text.
        """
        with self._transaction(writes=True) as connection:
            return take_all(connection, messages, progress)

    def get(self, identifier: str) -> Message | None:
        """Return a message, or None if there is none of this identifier."""
        columns = (messages.c.id, messages.c.text, messages.c.channel, messages.c.time)
        with self._transaction() as connection:
            found = connection.execute(
                select(*columns).where(messages.c.id == storable(identifier))
            ).one_or_none()
        return Message(*found) if found else None

    def count(self) -> int:
        """Return the number of messages."""
        with self._transaction() as connection:
            return connection.execute(select(func.count()).select_from(messages)).scalar_one()

    def read_all(self) -> list[Message]:
        """Return every message, by identifier."""
        columns = (messages.c.id, messages.c.text, messages.c.channel, messages.c.time)
        with self._transaction() as connection:
            found = connection.execute(select(*columns).order_by(messages.c.id))
            return [Message(*row) for row in found]

    def posts(self) -> list[Post]:
        """Return a post for each message, oldest first.

        Its time is that of the message, or, where that is not known, when the text came in.
        """
        time = func.coalesce(messages.c.time, messages.c.seen_at).label("time")
        statement = select(messages.c.id, messages.c.fingerprint, time).order_by(
            time, messages.c.id
        )
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

    def unscored(self, model: str, limit: int, after: str = "") -> list[tuple[str, str]]:
        """Return up to `limit` fingerprints that the model has not scored, each with its text.

        They come in order, from the one that follows `after`: pass the last one of the call before
        to go through the store once. Every call with an empty `after` starts from the beginning.
        """
        missing = (
            select(messages.c.fingerprint, func.min(messages.c.id).label("id"))
            .where(
                messages.c.fingerprint > after,
                ~exists().where(
                    scores.c.model == model, scores.c.fingerprint == messages.c.fingerprint
                ),
            )
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
        """Make a model known, with the score, 0 to 1, from which it calls a message positive.

        A model that is known already stays as it is. Raises ValueError for a bad threshold.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} is not from 0 to 1")
        with self._transaction() as connection:  # does not wait for one that writes
            known = select(models.c.tag).where(models.c.tag == model)
            if connection.execute(known).first():
                return
        row = {"tag": model, "threshold": threshold, "started_at": datetime.now(UTC)}
        with self._transaction(writes=True) as connection:
            connection.execute(upsert(connection, models).on_conflict_do_nothing(), row)

    def save_scores(self, model: str, scored: Sequence[tuple[str, float]]) -> None:
        """Keep a known model's scores by fingerprint, from 0 to 1. One that it gave before stays.

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
        """Return the messages that there are of these identifiers, by identifier.

        Each has the score that the model gave it, None if it has not scored it yet.
        """
        asked = {storable(identifier) for identifier in identifiers}
        values = {"model": model, "identifiers": list(asked)}
        with self._transaction() as connection:
            found = connection.execute(_FOUND, values).all()
        return {row.id: Scored(Message(*row[:-1]), row.score) for row in found}

    def scores_by(self, model: str) -> dict[str, float]:
        """Return every score that the model gave, from 0 to 1, by fingerprint."""
        statement = select(scores.c.fingerprint, scores.c.score).where(scores.c.model == model)
        with self._transaction() as connection:
            return {row.fingerprint: row.score for row in connection.execute(statement)}

    def mark_complete(self, model: str) -> None:
        """Remember that a known model has now scored every message."""
        with self._transaction(writes=True) as connection:
            connection.execute(
                update(models).where(models.c.tag == model).values(completed_at=datetime.now(UTC))
            )

    def shown_model(self, current: str) -> str:
        """Return the model whose feed to show while `current` may still be scoring.

        That is `current` once it was complete, whatever came in since; before, the one that was
        marked complete last; `current` if none ever was.
        """
        with self._transaction() as connection:
            shown = connection.execute(_SHOWN, {"current": current}).scalar_one_or_none()
        return shown or current

    def feed(self, model: str, limit: int, after: Cursor | None = None) -> FeedPage:
        """Return a page of up to `limit` messages by falling score, equal ones by fingerprint.

        Messages with the same text are one item, which shows the smallest identifier. The page
        after a cursor is of the cursor's model, whatever `model` is. Scores that come in between
        two pages may shift ranks; no item is shown twice.

        Raises ValueError for a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        values: dict[str, Any] = {"model": after.model if after else model}
        parts = [_RANKED]
        if after:
            parts = [_EQUAL, _LOWER]
            values |= {"last_score": after.score, "last_fingerprint": after.fingerprint}
        found: list[Any] = []
        with self._transaction() as connection:
            for part in parts:
                if len(found) <= limit:
                    rest = {"rows": limit + 1 - len(found)}
                    found += connection.execute(part, values | rest).all()
        first = after.rank + 1 if after else 1
        items = [
            FeedItem(row.id, row.text, row.score, row.score >= row.threshold, rank, row.copies)
            for rank, row in enumerate(found[:limit], first)
        ]
        following = None
        if len(found) > limit:
            last = found[limit - 1]
            following = Cursor(last.model, last.score, last.fingerprint, items[-1].rank)
        return FeedPage(after.model if after else model, items, following)

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        try:
            with (
                self._engine.connect().execution_options(writes=writes) as connection,
                connection.begin(),
            ):
                yield connection
        except (DBAPIError, TimeoutError) as error:
            raise _unavailable(self.location, error) from error

    def _import_dump(self, path: Path, progress: Progress | None) -> None:
        with dump.open_read_only(path) as source:
            with self._transaction() as connection:
                if not unread(connection, source):
                    return
            _log.info("importing messages from %s", path)
            with self._transaction(writes=True) as connection:
                counts, skipped = take_dump(connection, source, progress)
            _log.info("imported %s: %s, empty: %d", path, counts, skipped)


def _ranked() -> Select[Any]:
    twins = messages.alias("twins")
    same_text = twins.c.fingerprint == scores.c.fingerprint
    first = select(func.min(twins.c.id)).where(same_text).scalar_subquery()
    copies = select(func.count()).select_from(twins).where(same_text).scalar_subquery()
    return (
        select(scores, models.c.threshold, messages.c.id, messages.c.text, copies.label("copies"))
        .join_from(scores, messages, messages.c.id == first)
        .join(models, models.c.tag == scores.c.model)
        .where(scores.c.model == bindparam("model"))
        .order_by(scores.c.score.desc(), scores.c.fingerprint)
        .limit(bindparam("rows"))
    )


# Built once: for SQLAlchemy that takes longer than for the database to answer.
_FOUND = (
    select(messages.c.id, messages.c.text, messages.c.channel, messages.c.time, scores.c.score)
    .outerjoin(
        scores,
        and_(scores.c.model == bindparam("model"), scores.c.fingerprint == messages.c.fingerprint),
    )
    .where(messages.c.id.in_(bindparam("identifiers", expanding=True)))
)
_SHOWN = (
    select(models.c.tag)
    .where(models.c.completed_at.is_not(None))
    .order_by(models.c.tag != bindparam("current"), models.c.completed_at.desc(), models.c.tag)
    .limit(1)
)
_RANKED = _ranked()
# What follows a cursor is two ranges of the index; one condition with OR would read all before.
_EQUAL = _RANKED.where(
    scores.c.score == bindparam("last_score"),
    scores.c.fingerprint > bindparam("last_fingerprint"),
)
_LOWER = _RANKED.where(scores.c.score < bindparam("last_score"))


def _file_of(engine: Engine) -> tuple[int, int] | None:
    """Return what tells a file of SQLite from another one by its name, None if there is none."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        status = Path(str(engine.url.database)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unavailable(location: str | Path, error: Exception) -> StoreUnavailable:
    """Return the error with the store's name before the reason, and without its password."""
    reason = getattr(error, "orig", None) or error
    return StoreUnavailable(f"message store {shown(location)}: {reason}")
