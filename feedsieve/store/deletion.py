"""Deletion of a message and of everything that was derived from it."""

from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from feedsieve.store.schema import (
    deletions,
    labels,
    message_history,
    messages,
    scores,
    shadow_pairs,
    sources,
    texts,
)
from feedsieve.text import fingerprint


def delete_message(connection: Connection, identifier: str, who: str) -> bool:
    """Delete a message and record that; return whether it was there."""
    statement = (
        select(sources.c.key, messages.c.source_id, messages.c.fingerprint)
        .join(sources, sources.c.number == messages.c.source)
        .where(messages.c.id == identifier)
    )
    message = connection.execute(statement).one_or_none()
    if message is None:
        return False
    earlier = select(message_history.c.text).where(message_history.c.id == identifier)
    history = [fingerprint(text) for text in connection.execute(earlier).scalars()]
    for column in (messages.c.id, message_history.c.id, labels.c.message):
        connection.execute(delete(column.table).where(column == identifier))
    unused = {message.fingerprint, *history}
    others = select(messages.c.fingerprint).where(messages.c.fingerprint.in_(unused))
    unused.difference_update(connection.execute(others).scalars())
    for column in (scores.c.fingerprint, texts.c.fingerprint, shadow_pairs.c.fingerprint):
        connection.execute(delete(column.table).where(column.in_(unused)))
    record = {
        "source": message.key,
        "source_id": message.source_id,
        "id": identifier,
        "time": datetime.now(UTC),
        "who": who,
    }
    connection.execute(insert(deletions), record)
    return True
