"""The rows of `messages` that a batch of an import reads, adds and changes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, insert, select, update

from feedsieve.message import Message
from feedsieve.store.batches import insert_all
from feedsieve.store.curation import TextFacts, store_facts
from feedsieve.store.schema import message_history, messages
from feedsieve.store.source_table import SourceTable
from feedsieve.text import fingerprint, route_id

Key = tuple[int, str]
"""A message's source, by number, and its identifier there."""

State = tuple[object, ...]


@dataclass(slots=True, eq=False)
class Row:
    """A stored message; the fields are columns of `messages`."""

    id: str  # empty until `Rows.name_added`
    source: int
    source_id: str
    text: str
    time: datetime | None = None
    sender: str | None = None
    link: str | None = None
    reply_to: str | None = None
    edited: datetime | None = None

    @property
    def state(self) -> State:
        """Everything that a message may change."""
        return self.source, self.text, self.time, self.sender, self.link, self.reply_to, self.edited


_DOT_SEGMENTS = (".", "..")  # browsers take them out of a path, escaped or not
_FIELDS = [field.name for field in fields(Row)]
_COLUMNS = [messages.c[name] for name in _FIELDS]
_UPDATE = update(messages).where(messages.c.id == bindparam("identifier"))


class Rows:
    """The rows that a batch may change, and those it adds."""

    def __init__(self, connection: Connection, keys: Sequence[Key], sources: SourceTable) -> None:
        """Read the stored rows of `keys`."""
        self._connection = connection
        self._sources = sources
        unknown = sources.get("")
        self._unknown = unknown.number if unknown else None
        self._by_key: dict[Key, Row] = {}
        self._stored: dict[str, Row] = {}  # by identifier
        self._before: dict[Row, State] = {}
        self._replaced: set[tuple[Row, str]] = set()
        self.added: list[Row] = []
        by_source: dict[int, set[str]] = defaultdict(set)
        for number, source_id in keys:
            by_source[number].add(source_id)
        for number, source_ids in by_source.items():
            same = messages.c.source == number, messages.c.source_id.in_(source_ids)
            for row in self._read(*same):
                self._by_key[number, row.source_id] = row
        short = {route_id(key[1]) for key in keys if key not in self._by_key}
        read = self._read(messages.c.id.in_(short)) if short else []
        self._by_id = {row.id: row for row in read}

    def __getitem__(self, key: Key) -> Row:
        return self._by_key[key]

    def find(self, key: Key, message: Message) -> Row | None:
        """Return the row of a message.

        A message whose source is unknown is the one with its identifier in another source if they
        have the same text.
        """
        row = self._by_key.get(key)
        if row is None:
            row = self._by_id.get(route_id(message.id))
            if (
                row is None
                or row.text != message.text
                or (row.source_id != message.id or self._unknown not in (row.source, key[0]))
            ):
                return None
            self._by_key[key] = row
        return row

    def add(self, key: Key, message: Message) -> None:
        """Add the row of a message; it is named and written later."""
        row = Row(
            "",
            *key,
            message.text,
            message.time,
            message.sender,
            message.link,
            message.reply_to,
            message.edited,
        )
        self.added.append(row)
        self._by_key[key] = row
        self._by_id.setdefault(route_id(message.id), row)

    def replace_text(self, row: Row, text: str) -> None:
        """Give a row a new text, and put the old one into the history."""
        self._replaced.add((row, row.text))
        row.text = text

    def repeated(self) -> Iterator[Row]:
        """Yield the added rows that had another text earlier in the batch."""
        added = set(self.added)
        return (row for row, _text in self._replaced if row in added)

    def changed(self) -> Iterator[tuple[Row, State]]:
        """Yield the rows that changed, new ones included, and their states before."""
        for row, before in self._before.items():
            if row.state != before:
                yield row, before

    def name_added(self) -> None:
        """Give added rows identifiers: that of the source, unless it is taken or no path has it."""
        unnamed = []
        for row in self.added:
            if self._by_id[route_id(row.source_id)] is row and row.source_id not in _DOT_SEGMENTS:
                row.id = route_id(row.source_id)
            else:
                unnamed.append(row)
        names = {row: self._names(row) for row in unnamed}
        taken = {row.id for row in self._by_key.values()} | self._by_id.keys()
        while unnamed:
            proposed = {row: route_id(next(names[row])) for row in unnamed}
            ids = messages.c.id.in_(set(proposed.values()))
            taken.update(self._connection.execute(select(messages.c.id).where(ids)).scalars())
            for row, name in proposed.items():
                if name not in taken:
                    row.id = name
                    taken.add(name)
            unnamed = [row for row in unnamed if not row.id]

    def write(self, now: datetime, facts: Mapping[str, TextFacts]) -> None:
        """Write what was added and changed. `facts` of texts, by fingerprint, are not computed."""
        fingerprints: dict[str, str] = {}  # texts by fingerprint

        def text_fields(row: Row) -> dict[str, Any]:
            key = fingerprint(row.text)
            fingerprints[key] = row.text
            return {"text": row.text, "fingerprint": key, "seen_at": now}

        changed = list(self.changed())
        new_text = {row for row, before in changed if before[1] != row.text}
        added = [_values(row) | text_fields(row) for row in self.added]
        rewritten = [_changes(row) | text_fields(row) for row in new_text]
        completed = [_changes(row) for row, _before in changed if row not in new_text]
        if added:
            insert_all(self._connection, insert(messages), added)
        if fingerprints:
            store_facts(self._connection, fingerprints, facts)
        for values in filter(None, (rewritten, completed)):
            self._connection.execute(_UPDATE, values)
        self._update_history(now)

    def _names(self, row: Row) -> Iterator[str]:
        source = self._sources.used[row.source]
        yield f"{source.name}:{row.source_id}"
        yield f"{source.key}:{row.source_id}"
        for number in count(2):
            yield f"{source.key}:{row.source_id}~{number}"

    def _read(self, *conditions: ColumnElement[bool]) -> list[Row]:
        statement = select(*_COLUMNS).where(*conditions)
        found = []
        for values in self._connection.execute(statement):
            row = self._stored.get(values.id)
            if row is None:
                row = self._stored[values.id] = Row(*values)
                self._before[row] = row.state
            found.append(row)
        return found

    def _update_history(self, now: datetime) -> None:
        """Add replaced texts to the history, each once, and remove those that are current again."""
        if not self._replaced:
            return
        replaced = {(row.id, text) for row, text in self._replaced}
        identifiers = list({identifier for identifier, _text in replaced})
        history = message_history.c
        statement = select(history.id, history.text).where(history.id.in_(identifiers))
        rows = self._connection.execute(statement)
        if new := replaced - {(row.id, row.text) for row in rows}:
            self._connection.execute(
                insert(message_history),
                [{"id": id, "text": text, "replaced_at": now} for id, text in new],
            )
        self._connection.execute(
            delete(message_history).where(
                history.id.in_(identifiers),
                exists().where(messages.c.id == history.id, messages.c.text == history.text),
            )
        )


def _values(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _FIELDS}


def _changes(row: Row) -> dict[str, Any]:
    values = _values(row)
    return {"identifier": values.pop("id")} | values
