"""Putting messages into the store: what is new, what has changed, and what is another message."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from feedsieve import dump
from feedsieve.curation import describe
from feedsieve.message import Message, clean
from feedsieve.readers import Messages
from feedsieve.schema import dump_extents, message_history, messages, upsert
from feedsieve.text import fingerprint

Progress = Callable[[int], None]
"""Is told, now and then, how many messages have been taken so far."""

_BATCH = 1000  # messages


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What became of the messages given: together, the counts are how many those were.

    `changed` ones came with a new text, or with a channel or time not known before.
    """

    added: int
    changed: int
    unchanged: int


def take_all(
    connection: Connection, messages: Iterable[Message], progress: Progress | None
) -> ImportCounts:
    """Store messages in the open transaction. Raises ValueError as `Intake.take` does."""
    intake = Intake(connection)
    remaining = iter(messages)
    while batch := list(islice(remaining, _BATCH)):
        intake.take(batch)
        if progress:
            progress(intake.taken)
    return intake.counts


def unread(connection: Connection, source: sqlite3.Connection) -> dict[str, dump.Extent | None]:
    """Return the raw tables with something new, each with the part that is known; None: no part."""
    columns = (dump_extents.c.last_row, dump_extents.c.rows, dump_extents.c.characters)
    found: dict[str, dump.Extent | None] = {}
    for table in dump.raw_tables(source):
        row = connection.execute(
            select(*columns).where(dump_extents.c.raw_table == table)
        ).one_or_none()
        known = dump.Extent(*row) if row else None
        if known is None or dump.extent(source, table, known.last_row) != known:
            found[table] = None
        elif dump.last_row(source, table) != known.last_row:
            found[table] = known
    return found


def take_dump(
    connection: Connection, source: sqlite3.Connection, progress: Progress | None
) -> tuple[ImportCounts, int]:
    """Store what is new in a dump; return what became of it, and how many entries were empty."""
    tables = unread(connection, source)
    candidates = Messages(
        chain.from_iterable(dump.rows(source, table, part) for table, part in tables.items())
    )
    counts = take_all(connection, candidates, progress)
    for table in tables:
        fields = asdict(dump.extent(source, table, dump.last_row(source, table)))
        connection.execute(
            upsert(connection, dump_extents)
            .values(raw_table=table, **fields)
            .on_conflict_do_update(index_elements=["raw_table"], set_=fields)
        )
    return counts, candidates.skipped


class Intake:
    """One import into the tables of an open transaction, a batch of messages at a time.

    Where an identifier comes twice the later text counts. The same import a second time changes
    nothing.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._now = datetime.now(UTC)
        self._before: dict[str, int] = {}  # what a message was before, hashed, if it changed
        self._changed: set[str] = set()
        self._added = 0
        self.taken = 0

    @property
    def counts(self) -> ImportCounts:
        changed = len(self._changed)
        return ImportCounts(self._added, changed, self.taken - self._added - changed)

    def take(self, batch: Sequence[Message]) -> None:
        """Store a batch. Raises ValueError for a message without identifier or text."""
        cleaned = [clean(message) for message in batch]
        stored = self._stored_for(cleaned)
        current = dict(stored)
        lost: set[tuple[str, str]] = set()
        for message in cleaned:
            if message.is_blank:
                raise ValueError(f"a message needs an identifier and a text: {message!r}")
            self._place(message, current, lost)
        self._insert([m for m in current.values() if m.id not in stored])
        self._update([m for m in current.values() if m.id in stored and m != stored[m.id]], stored)
        self._remember(lost)
        self.taken += len(cleaned)

    def _place(
        self, message: Message, current: dict[str, Message], lost: set[tuple[str, str]]
    ) -> None:
        known = current.get(message.id)
        if known is not None and not _is_same(known, message):
            message = replace(message, id=_qualified(message))
            known = current.get(message.id)
        if known is None:
            current[message.id] = message
            self._added += 1
            return
        message = replace(
            message, channel=message.channel or known.channel, time=message.time or known.time
        )
        if message == known:
            return
        if message.text != known.text:
            lost.add((known.id, known.text))
        current[message.id] = message
        before = self._before.setdefault(message.id, hash(known))
        if hash(message) == before:
            self._changed.discard(message.id)
        else:
            self._changed.add(message.id)

    def _stored_for(self, batch: list[Message]) -> dict[str, Message]:
        times = Counter(message.id for message in batch)
        stored = self._stored(list(times))
        clashing = {
            _qualified(message)
            for message in batch
            if times[message.id] > 1
            or (message.id in stored and not _is_same(stored[message.id], message))
        }
        return stored | self._stored(list(clashing)) if clashing else stored

    def _stored(self, identifiers: list[str]) -> dict[str, Message]:
        columns = (messages.c.id, messages.c.text, messages.c.channel, messages.c.time)
        found = self._connection.execute(select(*columns).where(messages.c.id.in_(identifiers)))
        return {row.id: Message(*row) for row in found}

    def _insert(self, added: list[Message]) -> None:
        if added:
            rows = [self._row(m) for m in added]
            self._connection.execute(insert(messages), rows)
            describe(self._connection, {row["fingerprint"]: row["text"] for row in rows})

    def _update(self, changed: list[Message], stored: dict[str, Message]) -> None:
        rewritten = [m for m in changed if m.text != stored[m.id].text]
        if rewritten:
            rows = [self._row(m) for m in rewritten]
            self._connection.execute(
                update(messages).where(messages.c.id == bindparam("identifier")),
                [_with_key(row) for row in rows],
            )
            describe(self._connection, {row["fingerprint"]: row["text"] for row in rows})
        rest = [m for m in changed if m.text == stored[m.id].text]
        if rest:
            self._connection.execute(
                update(messages).where(messages.c.id == bindparam("identifier")),
                [{"identifier": m.id, "channel": m.channel, "time": m.time} for m in rest],
            )

    def _remember(self, lost: set[tuple[str, str]]) -> None:
        """Put texts into the history, each once, and take out of it those that are back."""
        if not lost:
            return
        identifiers = list({identifier for identifier, _ in lost})
        history = message_history.c
        known = self._connection.execute(
            select(history.id, history.text).where(history.id.in_(identifiers))
        )
        if fresh := lost - {(row.id, row.text) for row in known}:
            self._connection.execute(
                insert(message_history),
                [{"id": i, "text": text, "replaced_at": self._now} for i, text in fresh],
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


def _is_same(known: Message, new: Message) -> bool:
    """Whether two messages with one identifier are one message.

    They are not if they come from two channels. If only one names its channel the text decides:
    chats and tables count from 1, so that an identifier alone says nothing across files.
    """
    if known.channel == new.channel:
        return True
    return None in (known.channel, new.channel) and known.text == new.text


def _qualified(message: Message) -> str:
    return f"{message.channel or ''}:{message.id}"


def _with_key(row: dict[str, Any]) -> dict[str, Any]:
    return {"identifier": row["id"], **{name: row[name] for name in row if name != "id"}}
