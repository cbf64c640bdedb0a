"""Import of messages: tell new, changed and unchanged ones apart, and store them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, select, tuple_

from feedsieve.errors import FeedsieveError
from feedsieve.message import Message, clean
from feedsieve.sources.keys import is_stable
from feedsieve.store.batches import in_batches, with_next
from feedsieve.store.curation import TextFacts
from feedsieve.store.database import large_cache
from feedsieve.store.message_rows import Key, Row, Rows
from feedsieve.store.schema import deletions
from feedsieve.store.source_table import Source, SourceTable

Progress = Callable[[int], None]
"""Called with the number of messages imported so far."""

Outcome = Literal["added", "changed", "unchanged", "deleted"]

_BATCH = 1000  # messages


class SourceConflict(FeedsieveError):
    """Most messages of an import have identifiers that other texts have. It stored nothing."""


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """Counts of messages.

    Changed ones have a new text, or something that was missing. Deleted ones were deleted from the
    store before, and are skipped.
    """

    added: int
    changed: int
    unchanged: int
    deleted: int = 0
    sources: tuple[Source, ...] = field(default=(), compare=False)  # of the messages
    recognised: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Keys in the import, and those by which the store knew the same sources before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of storing one message, and its identifier in routes."""

    id: str
    outcome: Outcome


def import_messages(
    connection: Connection,
    messages: Iterable[Message],
    progress: Progress | None = None,
    *,
    is_update: bool = True,
) -> ImportCounts:
    """Store messages.

    Without `is_update`, raises SourceConflict if most messages of a source that is known by a name
    only have identifiers that other texts have. Raises ValueError for a message without identifier
    or text.
    """
    run = _Import(connection)
    with large_cache(connection):
        for batch, following in with_next(in_batches(messages, _BATCH)):
            run.store(batch, following)
            if progress:
                progress(run.total)
    if not is_update:
        run.check_conflicts()
    return run.counts


def store_messages(
    connection: Connection, batch: Sequence[Message], facts: Mapping[str, TextFacts]
) -> list[Stored]:
    """Store messages and return the outcome of each, in their order; see `import_messages`.

    A text is an edit of the stored one unless its own time of edit says otherwise. `facts` are
    those of the texts, by fingerprint.
    """
    return _Import(connection, is_newest=True).store(batch, facts=facts)


def store_missing(
    connection: Connection, messages: Iterable[Message], alike: tuple[str, Sequence[Message]]
) -> list[Stored]:
    """Store the messages that are not there, and leave those that are as they are.

    `alike` is a source's key, and more messages that show whether it is known by another key.
    """
    run = _Import(connection, keeps_known=True)
    key, others = alike
    run.recognise(key, others)
    stored = []
    for batch, following in with_next(in_batches(messages, _BATCH)):
        stored += run.store(batch, following)
    return stored


class _Import:
    """One import in an open transaction. The last of several texts for one identifier counts."""

    def __init__(
        self, connection: Connection, *, keeps_known: bool = False, is_newest: bool = False
    ) -> None:
        """`keeps_known`: messages that were in the store before are not changed.

        `is_newest`: messages without a time of edit are newer than what is stored.
        """
        self._connection = connection
        self._keeps_known = keeps_known
        self._is_newest = is_newest
        self._own: set[str] = set()  # messages that were not, if it matters
        self._now = datetime.now(UTC)
        self._sources = SourceTable(connection, self._now)
        self._has_deletions = bool(connection.execute(select(deletions.c.id).limit(1)).first())
        self._originals: dict[str, int] = {}  # hashes of messages before their first change
        self._changed: set[str] = set()
        self._added = 0
        self._deleted = 0
        self._compared: Counter[int] = Counter()  # messages with known identifiers, by source
        self._different: Counter[int] = Counter()  # those with another text, and no time of edit
        self.total = 0

    @property
    def counts(self) -> ImportCounts:
        changed = len(self._changed)
        return ImportCounts(
            self._added,
            changed,
            self.total - self._added - changed - self._deleted,
            self._deleted,
            tuple(self._sources.used.values()),
            tuple(self._sources.recognised.items()),
        )

    def recognise(self, key: str, messages: Sequence[Message]) -> None:
        """Find the source that has most of these messages, and take it for the one with `key`."""
        if messages:
            self._sources.find(key, None, [clean(message) for message in messages[:_BATCH]])

    def check_conflicts(self) -> None:
        """Raise SourceConflict if a source that is known by a name only seems to be two."""
        for number, different in self._different.items():
            source, compared = self._sources.used[number], self._compared[number]
            if 2 * different > compared and not is_stable(source.key):
                raise SourceConflict(
                    f"{different:,} of {compared:,} identifiers that repeat in"
                    f" {source.key or 'messages without a source'} have another text: if this is"
                    " another chat, name it with --source NAME; if these are newer texts of the"
                    " same messages, add --update"
                )

    def store(
        self,
        batch: Sequence[Message],
        following: Sequence[Message] = (),
        facts: Mapping[str, TextFacts] | None = None,
    ) -> list[Stored]:
        """Store a batch. Raises ValueError for a message without identifier or text.

        `following` are more messages, which are not stored: they help to recognise sources. `facts`
        of texts, by fingerprint, are not computed again.
        """
        cleaned = [clean(message) for message in batch]
        for message in cleaned:
            if message.is_blank:
                raise ValueError(f"a message needs an identifier and a text: {message!r}")
        found = self._find_sources(cleaned, following)
        keys = [(found[message.source].number, message.id) for message in cleaned]
        deleted = self._find_deleted(keys) if self._has_deletions else {}
        rows = Rows(self._connection, keys, self._sources)
        outcomes: list[Outcome] = []
        for key, message in zip(keys, cleaned, strict=True):
            if key in deleted:
                outcomes.append("deleted")
            elif row := rows.find(key, message):
                may_change = not self._keeps_known or not row.id or row.id in self._own
                is_changed = may_change and self._merge(rows, row, key, message)
                outcomes.append("changed" if is_changed else "unchanged")
            else:
                rows.add(key, message)
                outcomes.append("added")
        rows.name_added()
        if self._keeps_known:
            self._own.update(row.id for row in rows.added)
        self._count_changed(rows)
        rows.write(self._now, facts or {})
        self._added += len(rows.added)
        self._deleted += outcomes.count("deleted")
        self.total += len(cleaned)
        return [
            Stored(deleted.get(key) or rows[key].id, outcome)
            for key, outcome in zip(keys, outcomes, strict=True)
        ]

    def _find_sources(
        self, batch: Sequence[Message], following: Sequence[Message]
    ) -> dict[str, Source]:
        by_key: dict[str, list[Message]] = defaultdict(list)
        for message in batch:
            by_key[message.source].append(message)
        titles = {message.source: message.channel for message in batch if message.channel}
        has_new = not all(map(self._sources.knows, by_key))
        if has_new:  # perhaps with a few messages at the end of this batch, and more in the next
            for message in map(clean, following):
                if message.source in by_key:
                    by_key[message.source].append(message)
        return {key: self._sources.find(key, titles.get(key), part) for key, part in by_key.items()}

    def _find_deleted(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Return the identifiers in routes of those messages that were deleted."""
        names = {(self._sources.used[number].key, id): (number, id) for number, id in keys}
        source = tuple_(deletions.c.source, deletions.c.source_id)
        columns = deletions.c["source", "source_id", "id"]
        found = self._connection.execute(select(*columns).where(source.in_(names)))
        return {names[row.source, row.source_id]: row.id for row in found}

    def _merge(self, rows: Rows, row: Row, key: Key, message: Message) -> bool:
        """Change a row to what `message` says; return whether it did."""
        self._compared[key[0]] += 1
        if message.text != row.text and not message.edited:
            self._different[key[0]] += 1
        if _is_older(message, row, self._is_newest):
            return False
        before = row.state
        if message.text != row.text:
            rows.replace_text(row, message.text)
        if message.source:  # or else a message without a source was found by its text
            row.source = key[0]
        row.time = message.time or row.time
        # The first ones stay: exports and bots write them differently.
        row.sender = row.sender or message.sender
        row.link = row.link or message.link
        row.reply_to = row.reply_to or message.reply_to
        row.edited = message.edited or row.edited
        return row.state != before

    def _count_changed(self, rows: Rows) -> None:
        self._changed.update(row.id for row in rows.repeated())
        for row, before in rows.changed():
            if hash(row.state) == self._originals.setdefault(row.id, hash(before)):
                self._changed.discard(row.id)
            else:
                self._changed.add(row.id)


def _is_older(message: Message, row: Row, is_newest: bool) -> bool:
    """Return whether a message is from before the edit that the store has.

    Telegram gives each edited message its time of edit; of other sources, some do.
    """
    written = message.edited
    if message.source.startswith("telegram:") and not is_newest:
        written = written or message.time
    return row.edited is not None and written is not None and written < row.edited
