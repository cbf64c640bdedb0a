"""The sources in the store: find the one that a key means, or add it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from feedsieve.message import Message
from feedsieve.sources.keys import UNKNOWN_KIND, is_stable, name_key, shown_key
from feedsieve.store.schema import deletions, messages, sources

ENOUGH = 3  # messages of the same identifier and text that show that two sources are one


@dataclass(slots=True)
class Source:
    """A row of `sources`."""

    number: int
    key: str
    title: str | None

    @property
    def name(self) -> str:
        """The title, or else the last part of the key."""
        return self.title or self.key.partition(":")[2]


class SourceTable:
    """The sources during one import, in an open transaction."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        columns = sources.c["number", "key", "title"]
        self._by_key = {row.key: Source(*row) for row in connection.execute(select(*columns))}
        self.used: dict[int, Source] = {}
        self._recognised: dict[str, Source] = {}  # by another key
        self.recognised: dict[str, str] = {}  # keys of the import, and earlier ones of the sources

    def get(self, key: str) -> Source | None:
        """Return the source with this key, if there is one."""
        return self._by_key.get(key)

    def knows(self, key: str) -> bool:
        """Return whether a source with this key is known, or recognised as another."""
        return key in self._by_key or key in self._recognised

    def find(self, key: str, title: str | None, batch: Sequence[Message]) -> Source:
        """Return the source that `key` means, with `title` as its new title.

        `batch` are the next messages of the source in this import. If the key is new, they show
        whether the source is known by another one: a chat that was imported from a table before its
        own export, or a copy of a file. If it is not, the source is added.
        """
        source = self._by_key.get(key) or self._recognised.get(key)
        if source is None:
            source = self._recognise(key, title, batch) or self._add(key, title)
        if title and title != source.title and _certainty(key) >= _certainty(source.key):
            source.title = title
            self._save(source)
        self.used[source.number] = source
        return source

    def _add(self, key: str, title: str | None) -> Source:
        row = {"key": key, "title": title, "seen_at": self._now}
        statement = insert(sources).values(row).returning(sources.c.number)
        number = self._connection.execute(statement).scalar_one()
        self._by_key[key] = source = Source(number, key, title)
        return source

    def _recognise(self, key: str, title: str | None, batch: Sequence[Message]) -> Source | None:
        for source in self._by_key.values():
            if _is_earlier_form(source.key, key) or (
                _may_be(source, key, title) and self._has_most(source, batch)
            ):
                self.recognised[key] = source.key
                if _certainty(key) > _certainty(source.key):
                    self._rename(source, key)
                self._recognised[key] = source
                return source
        return None

    def _has_most(self, source: Source, batch: Sequence[Message]) -> bool:
        """Return whether most of the identifiers that `batch` shares with a source have its texts.

        Two chats share identifiers, since each counts from 1, but rarely texts at the same ones.
        """
        texts = {message.id: message.text for message in batch}
        statement = select(messages.c.source_id, messages.c.text).where(
            messages.c.source == source.number, messages.c.source_id.in_(texts)
        )
        rows = self._connection.execute(statement).all()
        same = [row for row in rows if texts[row.source_id] == row.text]
        return 2 * len(same) > len(rows) and len(same) >= ENOUGH

    def _rename(self, source: Source, key: str) -> None:
        """Give a source a better key; its deleted messages stay deleted."""
        earlier = source.key
        del self._by_key[earlier]
        source.key = key
        self._by_key[key] = source
        self._save(source)
        deleted = select(deletions.c.source_id).where(deletions.c.source == key)
        self._connection.execute(
            update(deletions)
            .where(deletions.c.source == earlier, deletions.c.source_id.not_in(deleted))
            .values(source=key)
        )

    def _save(self, source: Source) -> None:
        self._connection.execute(
            update(sources)
            .where(sources.c.number == source.number)
            .values(key=source.key, title=source.title)
        )


def _certainty(key: str) -> int:
    """Return how well a key identifies a source; the highest number is for certain."""
    if is_stable(key):
        return 3 if f":{UNKNOWN_KIND}:" in key or shown_key(key) != key else 4
    return 0 if not key else 2 if key.startswith("name:") else 1


def _is_earlier_form(stored: str, key: str) -> bool:
    """Return whether two keys differ in what earlier versions wrote.

    That is `stored` before the kinds of Telegram's chats were stored, and one of the two while the
    query of a feed's URL was.
    """
    service, _, rest = key.partition(":")
    of_unknown_kind = f"{service}:{UNKNOWN_KIND}:{rest.partition(':')[2]}"
    return stored == of_unknown_kind or shown_key(stored) == shown_key(key)


def _may_be(source: Source, key: str, title: str | None) -> bool:
    """Return whether a source may be the one with another key, if the messages say so."""
    if not source.key or not key or (is_stable(source.key) and is_stable(key)):
        return False
    by_file = min(_certainty(source.key), _certainty(key)) == 1
    return by_file or (title is not None and title == source.title) or name_key(title) == source.key
