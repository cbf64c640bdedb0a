"""Labels in the store: every one that a person gave, and the one that counts for each message."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, and_, insert, select

from feedsieve.message import Label, Message, in_utc
from feedsieve.store.batches import in_batches
from feedsieve.store.schema import labels, message_columns, messages, select_messages
from feedsieve.text import route_id, storable

_BATCH = 500  # messages
_LABELS = ("positive", "negative")


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """A label that a person gave a message.

    Without a time, it is the present label from this origin: if the person's last one from there is
    the same, it is known, and otherwise its time is now. Without a fingerprint it is about the
    message's present text.
    """

    message: str  # identifier in routes
    label: Label | None  # None: withdrawn
    who: str
    origin: str  # label-studio, feed, or a file's name
    time: datetime | None = None
    note: str | None = None
    is_ground_truth: bool = False
    fingerprint: str | None = None  # of the labelled text


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts of labels."""

    added: int = 0
    known: int = 0
    missing: int = 0  # of messages that are not in the store; not added
    outdated: int = 0  # of those added: about another text than the message has


@dataclass(frozen=True, slots=True)
class ResolvedLabel:
    """A message and the label that counts; None if people are tied.

    `votes` are the last labels of each person that has labelled the present text and has not
    withdrawn it, by time.
    """

    message: Message
    source_id: str  # the message's identifier in its source
    label: Label | None
    votes: tuple[GivenLabel, ...]

    @property
    def deciding(self) -> tuple[GivenLabel, ...]:
        """The votes for the label; all that are tied if there is none."""
        counted = _counted(self.votes)
        return tuple(vote for vote in counted if self.label in (vote.label, None))


_ORDER = labels.c.time, labels.c.number
_COLUMNS = (
    labels.c.message,
    labels.c.label,
    labels.c.who,
    labels.c.origin,
    labels.c.time.label("labelled"),
    labels.c.note,
    labels.c.is_ground_truth,
    labels.c.fingerprint,
)


def add_labels(connection: Connection, given: Iterable[GivenLabel]) -> LabelCounts:
    """Store labels that are new.

    A label is known if one of the same message, text, person, time, origin and value is there.
    Raises ValueError for a label without a person or an origin, and for unknown values.
    """
    totals: Counter[str] = Counter()
    now = datetime.now(UTC)
    for batch in in_batches(map(_cleaned, given), _BATCH):
        totals.update(_add_batch(connection, batch, now))
    return LabelCounts(**totals)


def label_history(connection: Connection, identifier: str) -> list[GivenLabel]:
    """Return every label of a message, the oldest first, with those of earlier texts."""
    statement = select(*_COLUMNS).where(labels.c.message == identifier).order_by(*_ORDER)
    return [GivenLabel(*row) for row in connection.execute(statement)]


def resolve(connection: Connection) -> list[ResolvedLabel]:
    """Return the messages that people have labelled, by identifier, with the label that counts.

    A person's last label of the present text counts. Ground truth comes first, then the majority.
    """
    columns = (messages.c.source_id, *_COLUMNS)
    is_present = and_(
        labels.c.message == messages.c.id, labels.c.fingerprint == messages.c.fingerprint
    )
    statement = select_messages(*columns).join(labels, is_present)
    rows = connection.execute(statement.order_by(messages.c.id, *_ORDER))
    return list(_resolved(rows))


def by_person(resolved: Iterable[ResolvedLabel]) -> dict[str, dict[Hashable, bool]]:
    """Return the votes by person and message: whether they are positive."""
    people: dict[str, dict[Hashable, bool]] = defaultdict(dict)
    for each in resolved:
        for vote in each.votes:
            people[vote.who][each.message.id] = vote.label == "positive"
    return people


def _resolved(rows: Iterable[Any]) -> Iterator[ResolvedLabel]:
    width = len(message_columns)
    for _identifier, group in groupby(rows, key=lambda row: row[0]):
        of_message = list(group)
        last: dict[str, GivenLabel] = {}
        for row in of_message:
            label = GivenLabel(*row[width + 1 :])
            last.pop(label.who, None)
            last[label.who] = label
        votes = tuple(label for label in last.values() if label.label)
        if votes:
            message = Message(*of_message[0][:width])
            yield ResolvedLabel(message, of_message[0][width], _majority(_counted(votes)), votes)


def _counted(votes: Sequence[GivenLabel]) -> Sequence[GivenLabel]:
    return [vote for vote in votes if vote.is_ground_truth] or votes


def _majority(votes: Sequence[GivenLabel]) -> Label | None:
    (winner, count), *others = Counter(vote.label for vote in votes).most_common()
    return None if others and others[0][1] == count else winner


def _cleaned(given: GivenLabel) -> GivenLabel:
    who, origin = storable(given.who).strip(), storable(given.origin).strip()
    if not who or not origin:
        raise ValueError(f"a label needs a person and an origin: {given!r}")
    if given.label not in (*_LABELS, None):
        raise ValueError(f"a label is positive or negative, not {given.label!r}")
    return replace(
        given,
        message=route_id(given.message),
        who=who,
        origin=origin,
        time=in_utc(given.time) if given.time else None,
        note=storable(given.note).strip() or None if given.note else None,
    )


def _add_batch(
    connection: Connection, batch: Sequence[GivenLabel], now: datetime
) -> dict[str, int]:
    identifiers = {label.message for label in batch}
    statement = select(messages.c.id, messages.c.fingerprint).where(messages.c.id.in_(identifiers))
    present = {row.id: row.fingerprint for row in connection.execute(statement)}
    stored: dict[tuple[str, ...], list[GivenLabel]] = defaultdict(list)
    statement = select(*_COLUMNS).where(labels.c.message.in_(identifiers)).order_by(*_ORDER)
    for row in connection.execute(statement):
        known = GivenLabel(*row)
        stored[_key(known)].append(known)
    counts: Counter[str] = Counter()
    rows = []
    for given in batch:
        if given.message not in present:
            counts["missing"] += 1
            continue
        label = replace(given, fingerprint=given.fingerprint or present[given.message])
        same = stored[_key(label)]
        if any(label.label == other.label for other in _comparable(label, same)):
            counts["known"] += 1
            continue
        label = replace(label, time=label.time or now)
        same.append(label)
        rows.append(_values(label))
        counts["outdated"] += label.fingerprint != present[label.message]
    if rows:
        connection.execute(insert(labels), rows)
    return {**counts, "added": len(rows)}


def _key(label: GivenLabel) -> tuple[str, ...]:
    return label.message, str(label.fingerprint), label.who, label.origin


def _comparable(label: GivenLabel, same: Sequence[GivenLabel]) -> Sequence[GivenLabel]:
    """Return the labels of a person that make `label` known if one of them has its value."""
    if label.time is None:
        return same[-1:]
    return [other for other in same if other.time == label.time]


def _values(label: GivenLabel) -> dict[str, Any]:
    names = "message", "label", "who", "origin", "time", "note", "is_ground_truth", "fingerprint"
    return {name: getattr(label, name) for name in names}
