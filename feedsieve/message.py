"""Messages, and the errors of reading and storing them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from feedsieve.errors import FeedsieveError
from feedsieve.text import storable

Label = Literal["positive", "negative"]


class InvalidFile(FeedsieveError, ValueError):
    """A file that cannot be read as messages. The message names file, place and fault."""


class StoreUnavailable(FeedsieveError):
    """The message store cannot be reached, read or written. The message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message. Identifiers are opaque strings; a time without a zone is UTC."""

    id: str
    text: str
    channel: str | None = None  # the name of the chat
    time: datetime | None = None

    @property
    def is_blank(self) -> bool:
        """True if the identifier or the text is empty."""
        return not self.id or not self.text or self.text.isspace()


def clean(message: Message) -> Message:
    """Return `message` as it is stored: storable strings, a channel or None, the time in UTC."""
    channel = storable(message.channel).strip() if message.channel else ""
    return Message(
        id=storable(message.id).strip(),
        text=storable(message.text),
        channel=channel or None,
        time=in_utc(message.time) if message.time else None,
    )


def in_utc(time: datetime) -> datetime:
    """Return the time in UTC. A time without a zone is taken as UTC."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
