"""Labels in files: find or add their messages, and the other way round."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from feedsieve.message import Message
from feedsieve.sources.keys import title_of
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.store.batches import in_batches
from feedsieve.store.ingest import SourceConflict, store_missing
from feedsieve.store.labels import GivenLabel, LabelCounts, add_labels
from feedsieve.store.schema import deletions, labels, message_history, messages, sources
from feedsieve.text import fingerprint, route_id

_BATCH = 500  # values in one IN
_DIGITS = 16  # of the fingerprint in the identifier of a message that has no other


@dataclass(frozen=True, slots=True)
class LabelImport:
    """Counts of the labels in a file, by outcome."""

    labels: LabelCounts
    messages_added: int
    deleted: int  # labels of messages that were deleted from the store; not added

    def summary(self, skipped: Mapping[str, int]) -> str:
        """Return the counts for users; `skipped` are other labels that were left out, by reason."""
        counts = self.labels
        reasons = [f"{reason} ({count:,})" for reason, count in skipped.items()]
        if self.deleted:
            reasons.append(f"of deleted messages ({self.deleted:,})")
        parts = [f"{counts.added:,} labels new, {counts.known:,} known"]
        if counts.outdated:
            parts.append(f"{counts.outdated:,} of the new ones about another text")
        if reasons:
            parts.append(f"skipped: {', '.join(reasons)}")
        return "; ".join([*parts, f"{self.messages_added:,} messages added"])


def import_labels(
    connection: Connection, given: Sequence[LabelledMessage], key: str
) -> LabelImport:
    """Store labels, and the messages that are not there; no message is changed.

    A message is found by its source and identifier. One whose source is unknown is that with the
    same identifier and text, now or earlier; one without an identifier is that with the same text.
    What is not found is added to the source `key`, or to the one that has most of the messages.
    Raises SourceConflict if `key` seems to be another chat of that name.
    """
    batch = list(dict.fromkeys(labelled.message for labelled in given))
    found = _find(connection, [each for each in batch if not (each.source and each.id)])
    same = sum(1 for message in found if message.id)
    unknown = [message for message in batch if not message.source and message not in found]
    gone = _deleted(connection, unknown)
    rest = [message for message in batch if message not in found and message not in gone]
    rest.sort(key=lambda message: (message.source, message.id))  # stable: the last text counts
    alike = [message for message in batch if message.id and not message.source]
    stored = store_missing(
        connection,
        _named(rest, key),
        (key, [replace(message, source=key) for message in alike] if unknown else []),
    )
    for message, outcome in zip(rest, stored, strict=True):
        if outcome.outcome != "deleted":
            found[message] = outcome.id
    different = _different(connection, {found[each]: each for each in unknown if each in found})
    if different > same:
        raise SourceConflict(
            f"{different:,} of {different + same:,} messages have another text in {key}: if they"
            " are of another chat, name it with --source NAME"
        )
    rows = [_given(each, found[each.message]) for each in given if each.message in found]
    added = sum(1 for each in stored if each.outcome == "added")
    return LabelImport(add_labels(connection, rows), added, len(given) - len(rows))


def labelled_messages(connection: Connection) -> Iterator[LabelledMessage]:
    """Yield every label with its message as labelled, by message; the present text comes last.

    The message's identifier is the one in its source. The text is empty if the store never had it.
    """
    is_present = labels.c.fingerprint == messages.c.fingerprint
    statement = (
        select(
            *messages.c["id", "source_id", "text"],
            sources.c.key,
            *labels.c["fingerprint", "label", "who", "time", "origin", "note", "is_ground_truth"],
            is_present.label("is_present"),
        )
        .join(sources, sources.c.number == messages.c.source)
        .join(labels, labels.c.message == messages.c.id)
        .order_by(messages.c.id, is_present, labels.c.time, labels.c.number)
    )
    earlier = _earlier_texts(connection)
    for row in connection.execute(statement):
        text = row.text if row.is_present else earlier.get((row.id, row.fingerprint), "")
        yield LabelledMessage(
            message=Message(row.source_id if row.key else row.id, text, source=row.key),
            label=row.label,
            who=row.who,
            time=row.time,
            origin=row.origin,
            note=row.note,
            is_ground_truth=row.is_ground_truth,
        )


def _find(connection: Connection, batch: Sequence[Message]) -> dict[Message, str]:
    """Return the identifiers of messages whose source is unknown, where they are found."""
    found: dict[Message, str] = {}
    by_id: dict[str, list[Message]] = defaultdict(list)
    by_text: dict[str, list[Message]] = defaultdict(list)
    for message in batch:
        if message.id:
            by_id[route_id(message.id)].append(message)
        else:
            by_text[fingerprint(message.text)].append(message)
    for part in in_batches(by_id, _BATCH):
        texts = _texts(connection, part)
        for identifier in part:
            for message in by_id[identifier]:
                if fingerprint(message.text) in texts[identifier]:
                    found[message] = identifier
    for part in in_batches(by_text, _BATCH):
        statement = (
            select(messages.c.fingerprint, func.min(messages.c.id).label("id"))
            .where(messages.c.fingerprint.in_(part))
            .group_by(messages.c.fingerprint)
        )
        for row in connection.execute(statement):
            found |= dict.fromkeys(by_text[row.fingerprint], row.id)
    return found


def _texts(connection: Connection, identifiers: Collection[str]) -> dict[str, set[str]]:
    """Return the fingerprints of the texts that messages have and had, by identifier."""
    texts: dict[str, set[str]] = defaultdict(set)
    now = select(*messages.c["id", "fingerprint"]).where(messages.c.id.in_(identifiers))
    for row in connection.execute(now):
        texts[row.id].add(row.fingerprint)
    earlier = select(*message_history.c["id", "text"])
    for row in connection.execute(earlier.where(message_history.c.id.in_(identifiers))):
        texts[row.id].add(fingerprint(row.text))
    return texts


def _deleted(connection: Connection, batch: Sequence[Message]) -> set[Message]:
    """Return the messages, of unknown source, whose identifier a deleted message had."""
    deleted: set[str] = set()
    for part in in_batches({route_id(message.id) for message in batch}, _BATCH):
        statement = select(deletions.c.id).where(deletions.c.id.in_(part))
        deleted.update(connection.execute(statement).scalars())
    return {message for message in batch if message.id and route_id(message.id) in deleted}


def _named(batch: Iterable[Message], key: str) -> Iterator[Message]:
    """Yield messages with a source and an identifier each.

    Without an identifier, or with one that another text in the file has, it is made of the text.
    """
    texts: dict[str, str] = {}
    for message in batch:
        print_ = fingerprint(message.text)
        is_named = bool(message.id)
        if not message.source:
            message = replace(message, source=key, channel=title_of(key))
            is_named = is_named and texts.setdefault(message.id, print_) == print_
        yield message if is_named else replace(message, id=f"text-{print_[:_DIGITS]}")


def _different(connection: Connection, expected: dict[str, Message]) -> int:
    """Return how many messages, by identifier, have another text than expected."""
    count = 0
    for part in in_batches(expected, _BATCH):
        statement = select(*messages.c["id", "fingerprint"]).where(messages.c.id.in_(part))
        for row in connection.execute(statement):
            count += row.fingerprint != fingerprint(expected[row.id].text)
    return count


def _earlier_texts(connection: Connection) -> dict[tuple[str, str], str]:
    """Return the earlier texts of labelled messages by identifier and fingerprint."""
    statement = select(*message_history.c["id", "text"])
    rows = connection.execute(statement.where(message_history.c.id.in_(select(labels.c.message))))
    return {(row.id, fingerprint(row.text)): row.text for row in rows}


def _given(labelled: LabelledMessage, identifier: str) -> GivenLabel:
    return GivenLabel(
        message=identifier,
        label=labelled.label,
        who=labelled.who,
        origin=labelled.origin,
        time=labelled.time,
        note=labelled.note,
        is_ground_truth=labelled.is_ground_truth,
        fingerprint=fingerprint(labelled.message.text),
    )
