"""Import of messages: tell new, changed and unchanged ones apart, and store them."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from feedsieve.message import Message, clean
from feedsieve.sources import sqlite_dump
from feedsieve.sources.readers import Messages
from feedsieve.store.curation import store_facts
from feedsieve.store.schema import dump_extents, message_columns, message_history, messages, upsert
from feedsieve.text import fingerprint

Progress = Callable[[int], None]
"""Called with the number of messages imported so far."""

_BATCH = 1000  # messages


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """Counts of messages. Changed ones have a new text, or a channel or time that was missing."""

    added: int
    changed: int
    unchanged: int


def import_messages(
    connection: Connection, messages: Iterable[Message], progress: Progress | None
) -> ImportCounts:
    """Store messages. Raises ValueError for one without identifier or text."""
    run = _Import(connection)
    remaining = iter(messages)
    while batch := list(islice(remaining, _BATCH)):
        run.store(batch)
        if progress:
            progress(run.total)
    return run.counts


def import_dump(
    connection: Connection, source: sqlite3.Connection, progress: Progress | None
) -> tuple[ImportCounts, int]:
    """Store the new messages of a dump; return their counts, and that of empty entries."""
    tables = unread_tables(connection, source)
    candidates = Messages(
        chain.from_iterable(sqlite_dump.rows(source, table, read) for table, read in tables.items())
    )
    counts = import_messages(connection, candidates, progress)
    for table in tables:
        fields = asdict(sqlite_dump.extent(source, table, sqlite_dump.last_row(source, table)))
        connection.execute(
            upsert(connection, dump_extents)
            .values(raw_table=table, **fields)
            .on_conflict_do_update(index_elements=["raw_table"], set_=fields)
        )
    return counts, candidates.report.skipped.total()


def unread_tables(
    connection: Connection, source: sqlite3.Connection
) -> dict[str, sqlite_dump.Extent | None]:
    """Return the raw tables with new rows, each with the extent to skip; None: read all of it."""
    columns = dump_extents.c["last_row", "rows", "characters"]
    unread: dict[str, sqlite_dump.Extent | None] = {}
    for table in sqlite_dump.raw_tables(source):
        statement = select(*columns).where(dump_extents.c.raw_table == table)
        row = connection.execute(statement).one_or_none()
        read = sqlite_dump.Extent(*row) if row else None
        if read is None or sqlite_dump.extent(source, table, read.last_row) != read:
            unread[table] = None
        elif sqlite_dump.last_row(source, table) != read.last_row:
            unread[table] = read
    return unread


class _Import:
    """One import in an open transaction. The last of several texts for one identifier counts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._now = datetime.now(UTC)
        self._originals: dict[str, int] = {}  # hashes of messages before their first change
        self._changed: set[str] = set()
        self._added = 0
        self.total = 0

    @property
    def counts(self) -> ImportCounts:
        changed = len(self._changed)
        return ImportCounts(self._added, changed, self.total - self._added - changed)

    def store(self, batch: Sequence[Message]) -> None:
        """Store a batch. Raises ValueError for a message without identifier or text."""
        cleaned = [clean(message) for message in batch]
        stored = self._stored_for(cleaned)
        current = dict(stored)
        replaced: set[tuple[str, str]] = set()
        for message in cleaned:
            if message.is_blank:
                raise ValueError(f"a message needs an identifier and a text: {message!r}")
            self._merge(message, current, replaced)
        added = [self._row(m) for m in current.values() if m.id not in stored]
        changed = [m for m in current.values() if m.id in stored and m != stored[m.id]]
        rewritten = [self._row(m) for m in changed if m.text != stored[m.id].text]
        completed = [
            {"id": m.id, "channel": m.channel, "time": m.time}
            for m in changed
            if m.text == stored[m.id].text
        ]
        if added:
            self._connection.execute(insert(messages), added)
        if new_texts := {row["fingerprint"]: row["text"] for row in added + rewritten}:
            store_facts(self._connection, new_texts)
        for rows in filter(None, (rewritten, completed)):
            values = [{"identifier": row.pop("id"), **row} for row in rows]
            self._connection.execute(_UPDATE, values)
        self._update_history(replaced)
        self.total += len(cleaned)

    def _merge(
        self, message: Message, current: dict[str, Message], replaced: set[tuple[str, str]]
    ) -> None:
        earlier = current.get(message.id)
        if earlier is not None and not _is_same(earlier, message):
            message = replace(message, id=_qualified(message))
            earlier = current.get(message.id)
        if earlier is None:
            current[message.id] = message
            self._added += 1
            return
        message = replace(
            message, channel=message.channel or earlier.channel, time=message.time or earlier.time
        )
        if message == earlier:
            return
        if message.text != earlier.text:
            replaced.add((earlier.id, earlier.text))
        current[message.id] = message
        if hash(message) == self._originals.setdefault(message.id, hash(earlier)):
            self._changed.discard(message.id)
        else:
            self._changed.add(message.id)

    def _stored_for(self, batch: list[Message]) -> dict[str, Message]:
        """Return the stored messages that a batch may change, by identifier."""
        times = Counter(message.id for message in batch)
        stored = self._stored(times)
        clashing = {
            _qualified(message)
            for message in batch
            if times[message.id] > 1
            or (message.id in stored and not _is_same(stored[message.id], message))
        }
        return stored | self._stored(clashing) if clashing else stored

    def _stored(self, identifiers: Iterable[str]) -> dict[str, Message]:
        statement = select(*message_columns).where(messages.c.id.in_(list(identifiers)))
        return {row.id: Message(*row) for row in self._connection.execute(statement)}

    def _update_history(self, replaced: set[tuple[str, str]]) -> None:
        """Add replaced texts to the history, each once, and remove those that are current again."""
        if not replaced:
            return
        identifiers = list({identifier for identifier, _text in replaced})
        history = message_history.c
        statement = select(history.id, history.text).where(history.id.in_(identifiers))
        rows = self._connection.execute(statement)
        if new := replaced - {(row.id, row.text) for row in rows}:
            self._connection.execute(
                insert(message_history),
                [{"id": id, "text": text, "replaced_at": self._now} for id, text in new],
            )
        self._connection.execute(
            delete(message_history).where(
                history.id.in_(identifiers),
                exists().where(messages.c.id == history.id, messages.c.text == history.text),
            )
        )

    def _row(self, message: Message) -> dict[str, Any]:
        return {
            "id": message.id,
            "text": message.text,
            "channel": message.channel,
            "time": message.time,
            "fingerprint": fingerprint(message.text),
            "seen_at": self._now,
        }


_UPDATE = update(messages).where(messages.c.id == bindparam("identifier"))


def _is_same(stored: Message, new: Message) -> bool:
    """Return whether two messages of one identifier are one message.

    Chats and tables count from 1, so that an identifier means nothing across files. The channel
    decides; if only one of them has one, the text.
    """
    if stored.channel == new.channel:
        return True
    return None in (stored.channel, new.channel) and stored.text == new.text


def _qualified(message: Message) -> str:
    return f"{message.channel or ''}:{message.id}"
