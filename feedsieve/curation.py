"""What is noticed of a text once, when it comes in, so that messages can be curated by SQL."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, exists, func, select

from feedsieve.language import language
from feedsieve.schema import messages, texts, upsert
from feedsieve.text import fingerprint, normalise

_MENTION = re.compile(r"\[[^][]{0,100}\]\(tg://user\?id=\d+\)|(?<![\w.@/])@\w{3,}")
_NUMBER = re.compile(r"\d+")
_BATCH = 1000  # texts


@dataclass(frozen=True, slots=True)
class TextFacts:
    """A text's language, and, if it mentions somebody, whom and what it says apart from that.

    `mentioned` is the fingerprint of the first mention. `template` is that of the text with every
    mention and every number read as the same one: what a bot tells everybody has one template and
    many mentioned. Both are None for a text that mentions nobody.
    """

    language: str
    template: str | None
    mentioned: str | None


def text_facts(text: str) -> TextFacts:
    """Return what curation needs to know of a text."""
    read = normalise(text).lower()
    template, mentioned = None, None
    if first := _MENTION.search(read):
        mentioned = fingerprint(first[0])
        template = fingerprint(_NUMBER.sub("0", _MENTION.sub("@", read)))
    return TextFacts(language(text), template, mentioned)


def describe(connection: Connection, by_fingerprint: Mapping[str, str]) -> None:
    """Keep the facts of texts, given by fingerprint, in the open transaction."""
    known = connection.execute(
        select(texts.c.fingerprint).where(texts.c.fingerprint.in_(by_fingerprint))
    )
    new = by_fingerprint.keys() - set(known.scalars())
    rows = [{"fingerprint": mark, **asdict(text_facts(by_fingerprint[mark]))} for mark in new]
    if rows:
        connection.execute(upsert(connection, texts), rows)


def describe_stored(connection: Connection) -> None:
    """Keep the facts of every stored text that has none: a store may be older than they are."""
    missing = (
        select(messages.c.fingerprint, func.min(messages.c.text).label("text"))
        .where(~exists().where(texts.c.fingerprint == messages.c.fingerprint))
        .group_by(messages.c.fingerprint)
        .limit(_BATCH)
    )
    while found := connection.execute(missing).all():
        describe(connection, {row.fingerprint: row.text for row in found})
