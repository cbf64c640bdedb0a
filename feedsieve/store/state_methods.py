"""The methods of `MessageStore` that say what state it is in."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, exists, func, select, update

from feedsieve.message import StoreUnavailable
from feedsieve.sources.chats import sqlite_dump
from feedsieve.store.sampling import newest
from feedsieve.store.schema import messages, revisions, scores


class StateMethods:
    """Whether a store can be read and written, and how much of it has no score."""

    write_failure: str | None
    """Why the last write failed, for clients; None if it succeeded or only waited in vain."""
    location: str
    _engine: Engine
    _file: tuple[int, int] | None

    @abstractmethod
    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[Connection]: ...

    def check_file(self) -> None:
        """Raise StoreUnavailable if SQLite's file is gone or replaced.

        What is written to the open one then is lost with it.
        """
        if self._file is not None and (file := file_id(self._engine)) != self._file:
            reason = "the file was replaced" if file else "the file is gone"
            raise StoreUnavailable(f"message store {self.location}: {reason}", reason)

    def check_reading(self) -> None:
        """Raise StoreUnavailable if messages or scores cannot be read."""
        if self._file is not None and file_id(self._engine) is None:
            self.check_file()
        with self._transaction() as connection:
            for column in (messages.c.id, scores.c.model):
                connection.execute(select(column).limit(1))

    def check_writing(self) -> None:
        """Write and commit, but change nothing. Raises StoreUnavailable if that fails.

        SQLite's connections are opened anew if they failed before: some may be read-only.
        """
        if self._file is not None:
            path = Path(str(self._engine.url.database))
            if path.exists() and not sqlite_dump.is_writable(path):
                self.write_failure = reason = "the file or its folder may not be written"
                raise StoreUnavailable(f"message store {self.location}: {reason}", reason)
            if self.write_failure:
                self._engine.dispose()
        with self._transaction(writes=True) as connection:
            connection.execute(update(revisions).values(version_num=revisions.c.version_num))

    def count_unscored(self, model: str) -> int:
        """Return the number of texts that the model has not scored. It reads all messages."""
        has_score = exists().where(
            scores.c.model == model, scores.c.fingerprint == messages.c.fingerprint
        )
        statement = select(func.count(messages.c.fingerprint.distinct())).where(~has_score)
        with self._transaction() as connection:
            return connection.execute(statement).scalar_one()

    def newest(self) -> datetime | None:
        """Return when the newest message was stored, or None. PostgreSQL reads all messages."""
        with self._transaction() as connection:
            return newest(connection)


def file_id(engine: Engine) -> tuple[int, int] | None:
    """Return the device and inode of SQLite's file, or None if there is none."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        status = Path(str(engine.url.database)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
