"""Facts about texts, stored when messages arrive so that SQL can curate messages."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select

from feedsieve.language import language
from feedsieve.store.batches import insert_all
from feedsieve.store.schema import messages, texts, upsert
from feedsieve.text import fingerprint, normalise

_MENTION = re.compile(r"\[[^][]{0,100}\]\(tg://user\?id=\d+\)|(?<![\w.@/])@\w{3,}")
_NUMBER = re.compile(r"\d+")
_BATCH = 1000  # texts


@dataclass(frozen=True, slots=True)
class TextFacts:
    """The language of a text and, if it mentions a user, its template and first mention.

    `template` is the fingerprint of the text with all mentions and numbers masked, `mentioned` that
    of the first mention. A notice that a bot sends to many users has one template.
    """

    language: str
    template: str | None
    mentioned: str | None


def text_facts(text: str) -> TextFacts:
    """Return the facts of `text`. Texts of one fingerprint have the same."""
    lower = normalise(text).lower()
    template, mentioned = None, None
    if ("@" in lower or "tg://user" in lower) and (first := _MENTION.search(lower)):
        mentioned = fingerprint(first[0])
        template = fingerprint(_NUMBER.sub("0", _MENTION.sub("@", lower)))
    return TextFacts(language(text), template, mentioned)


def facts_by_fingerprint(contents: Iterable[str]) -> dict[str, TextFacts]:
    """Return the facts of texts by their fingerprints."""
    return {fingerprint(text): text_facts(text) for text in set(contents)}


def store_facts(
    connection: Connection,
    by_fingerprint: Mapping[str, str],
    known: Mapping[str, TextFacts] | None = None,
) -> None:
    """Store the facts of texts, given by fingerprint, that have none yet.

    Those that are `known` are not computed: that takes 40 ms for the worst texts, while others
    wait for the transaction.
    """
    known = known or {}
    stored = select(texts.c.fingerprint).where(texts.c.fingerprint.in_(by_fingerprint))
    new = by_fingerprint.keys() - set(connection.execute(stored).scalars())
    rows = []
    for key in new:
        facts = known.get(key) or text_facts(by_fingerprint[key])
        rows.append(
            {
                "fingerprint": key,
                "language": facts.language,
                "template": facts.template,
                "mentioned": facts.mentioned,
            }
        )
    if rows:
        insert_all(connection, upsert(connection, texts), rows)


def store_missing_facts(connection: Connection) -> None:
    """Store the facts of all messages: the store may be older than the table of facts."""
    missing = (
        select(messages.c.fingerprint, func.min(messages.c.text).label("text"))
        .where(~exists().where(texts.c.fingerprint == messages.c.fingerprint))
        .group_by(messages.c.fingerprint)
        .limit(_BATCH)
    )
    while rows := connection.execute(missing).all():
        store_facts(connection, {row.fingerprint: row.text for row in rows})
