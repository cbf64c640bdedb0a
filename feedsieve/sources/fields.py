"""Fields of messages found by their names, and values of any type read as strings and times."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from feedsieve.message import Message, in_utc
from feedsieve.sources.columns import ROLES, compact
from feedsieve.sources.keys import bot_api_key, name_key
from feedsieve.sources.report import ReadReport

# The first name that is there counts.
_NAMES = {
    "id": (*ROLES["id"], "guid", "uuid"),
    "text": (*ROLES["text"], "rawtext", "caption"),
    "channel": (*ROLES["channel"], "room"),
    "chat": (*ROLES["chat"], "dialogid"),
    "time": ("dateunixtime", *ROLES["time"], "messagedate", "ts"),
    "sender": (*ROLES["sender"], "fromuser", "nickname"),
    "link": ROLES["link"],
    "reply_to": (*ROLES["reply_to"], "replymessageid", "replymsgid"),
    "edited": (*ROLES["edited"], "editedunixtime", "timestampedited"),
}
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DEEPEST = 8
_TITLES = ("title", "name", "display_name", "username", "first_name", "id")  # of a chat or user


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields that hold a message; None for those that are not there."""

    id: str | None
    text: str | None
    channel: str | None
    chat: str | None  # the chat's identifier
    time: str | None
    sender: str | None
    link: str | None
    reply_to: str | None
    edited: str | None

    @property
    def are_a_message(self) -> bool:
        """Whether there is an identifier and a text."""
        return self.id is not None and self.text is not None

    def message(self, row: Any, report: ReadReport) -> Message:
        """Return the message in a row, which is read by name; a missing text becomes empty."""
        return Message(
            id=string(row[self.id]) if self.id else "",
            text=text_of(row[self.text]) if self.text else "",
            channel=name_of(row[self.channel]) if self.channel else None,
            time=time_of(row[self.time], report) if self.time else None,
            source=_chat_key(row[self.chat]) if self.chat else "",
            sender=name_of(row[self.sender]) if self.sender else None,
            link=string(row[self.link]) or None if self.link else None,
            reply_to=string(row[self.reply_to]) or None if self.reply_to else None,
            edited=read_time(row[self.edited]) if self.edited else None,
        )


@lru_cache(256)
def fields_of(names: tuple[str, ...]) -> Fields:
    """Return which of the names, as they are written, are fields of a message."""
    written = {compact(name): name for name in reversed(names)}
    return Fields(**{field: _first(written, known) for field, known in _NAMES.items()})


def _first(written: dict[str, str], known: Iterable[str]) -> str | None:
    return next((written[name] for name in known if name in written), None)


def _chat_key(value: object) -> str:
    """Return the key of a chat by its identifier, which is Telegram's if it is negative."""
    chat = string(value)
    if chat.startswith("-") and chat[1:].isdecimal():
        return bot_api_key(int(chat))
    return name_key(chat)


def string(value: object) -> str:
    """Return an identifier or name as a string; empty for null and for values with parts."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    return ""


def name_of(value: object) -> str | None:
    """Return the name of a chat or a user, which may be an object with a title or a name."""
    if isinstance(value, dict):
        return next((found for title in _TITLES if (found := string(value.get(title)))), None)
    return string(value) or None


def text_of(value: object, depth: int = 0) -> str:
    """Return a text, joined if it has parts, with the address of each link behind its words.

    Parts within parts are read to a depth that no program writes.
    """
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(
            [part if isinstance(part, str) else text_of(part, depth + 1) for part in value]
        )
    if isinstance(value, dict):
        return with_link(text_of(value.get("text"), depth + 1), value.get("href"))
    return string(value)


def with_link(text: str, address: object) -> str:
    """Return `text (address)`, or the text alone if it is the address or there is none."""
    if not isinstance(address, str) or not address or _bare(address) == _bare(text):
        return text
    words = text.rstrip()
    return f"{words} ({address}){text[len(words) :]}" if words else f"{address}{text}"


def _bare(address: str) -> str:
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", address.strip().lower()).rstrip("/")


def time_of(value: object, report: ReadReport) -> datetime | None:
    """Return the time that a value means; None, counted in the report, for an unknown one."""
    time = read_time(value)
    if time is None and value is not None and value != "":
        report.miss_time(value)
    return time


def read_time(value: object) -> datetime | None:
    """Return the time of a value: ISO 8601, or seconds, milli-, micro- or nanoseconds since 1970.

    A time without a zone is UTC. None if the value is none of these.
    """
    try:
        if isinstance(value, str):
            if len(value) == 10 and value.isdecimal():  # what exports have most
                return datetime.fromtimestamp(int(value), UTC)
            value = value.strip()
            if not _NUMBER.fullmatch(value):
                return in_utc(datetime.fromisoformat(value.removesuffix(" UTC")))
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            units = next((unit for unit in (1, 1e3, 1e6, 1e9) if abs(value) < unit * 1e11), 1)
            return datetime.fromtimestamp(value / units, UTC)  # 1e11 s is the year 5138
    except (ValueError, OverflowError, OSError):
        pass
    return None
