"""What a message is, and the two ways in which reading or keeping messages can fail."""

from dataclasses import dataclass
from datetime import UTC, datetime

from feedsieve.text import storable


class UnreadableFile(ValueError):
    """A file that cannot be read as messages; says which, where in it, and what was expected."""


class StoreUnavailable(RuntimeError):
    """The message store cannot be reached, read or written; says which store and why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat: an identifier, a text, and where known the chat's name and the time.

    Identifiers are opaque strings. A time without a zone is taken as UTC.
    """

    id: str
    text: str
    channel: str | None = None
    time: datetime | None = None

    @property
    def is_blank(self) -> bool:
        """Whether there is no identifier to find the message by, or no text to score."""
        return not self.id or not self.text or self.text.isspace()


def clean(message: Message) -> Message:
    """Return `message` as it is kept: storable strings, a channel or None, the time in UTC."""
    channel = storable(message.channel).strip() if message.channel else ""
    return Message(
        id=storable(message.id).strip(),
        text=storable(message.text),
        channel=channel or None,
        time=in_utc(message.time) if message.time else None,
    )


def in_utc(time: datetime) -> datetime:
    """Return the same moment in UTC; a time without a zone is taken as UTC already."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
