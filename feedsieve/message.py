"""Messages, and the errors of reading and storing them."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from feedsieve.errors import FeedsieveError
from feedsieve.text import storable

Label = Literal["positive", "negative"]

LONGEST_NAME = 800  # bytes of an identifier or a source: PostgreSQL indexes three in 2,700


class InvalidFile(FeedsieveError, ValueError):
    """A file that cannot be read as messages. The message names file, place and fault."""


class StoreUnavailable(FeedsieveError):
    """The message store cannot be reached, read or written. The message names it and the reason.

    `reason` is for clients: it names neither the store's place nor a user.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or message


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message. Identifiers are opaque strings; a time without a zone is UTC.

    On the way in, `id` and `reply_to` are the identifiers within the source. In the store, `id` is
    that of the routes: the same, unless a message of another source had it first.
    """

    id: str
    text: str
    channel: str | None = None  # the title of the source, which may change
    time: datetime | None = None
    source: str = ""  # a key, see feedsieve/sources/keys.py; by default `name:` and the channel
    sender: str | None = None
    link: str | None = None  # to the original
    reply_to: str | None = None
    edited: datetime | None = None

    def __post_init__(self) -> None:
        if self.channel and not self.source:
            object.__setattr__(self, "source", _named(self.channel))

    @property
    def is_blank(self) -> bool:
        """True if the identifier or the text is empty."""
        return not self.id or not self.text or self.text.isspace()


def clean(message: Message) -> Message:
    """Return `message` as it is stored: storable strings without edges of space, times in UTC.

    Of identifiers and names with more than `LONGEST_NAME` bytes, such as a feed's signed links, the
    end is a hash.
    """
    source = _name(message.source) or ""
    is_named = message.source == _named(message.channel or "") or source == _named("")
    return Message(
        id=_name(message.id) or "",
        text=storable(message.text),
        channel=_name(message.channel),
        time=in_utc(message.time) if message.time else None,
        source="" if is_named else source,
        sender=_name(message.sender),
        link=_stripped(message.link),
        reply_to=_name(message.reply_to),
        edited=in_utc(message.edited) if message.edited else None,
    )


def _named(channel: str) -> str:
    return f"name:{channel}"


def _stripped(value: str | None) -> str | None:
    return (storable(value).strip() or None) if value else None


def _name(value: str | None) -> str | None:
    name = _stripped(value)
    if name is None or len(encoded := name.encode()) <= LONGEST_NAME:
        return name
    end = "~" + hashlib.blake2b(encoded, digest_size=16).hexdigest()
    return encoded[: LONGEST_NAME - len(end)].decode(errors="ignore") + end


def in_utc(time: datetime) -> datetime:
    """Return the time in UTC. A time without a zone is taken as UTC.

    Raises ValueError for one that is before the year 1 or after 9999 there.
    """
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:  # which callers that read what people wrote do not expect
        raise ValueError(f"{time.isoformat()} is not in the years 1 to 9999 of UTC") from error
