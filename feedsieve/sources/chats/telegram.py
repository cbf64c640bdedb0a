"""Telegram Desktop's `result.json`: one chat, or all chats of an account."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.chats.json_rows import is_row, read_row
from feedsieve.sources.fields import read_time, string, text_of, time_of, with_link
from feedsieve.sources.json_stream import JsonStream
from feedsieve.sources.keys import TELEGRAM_KINDS, name_key, telegram_key
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, one_line, reason_of

NAME = "telegram"
TITLE = "Telegram Desktop's export"
_LISTS = ("chats", "left_chats")
_EXPECTED = "Telegram Desktop's result.json: one chat with `messages`, or `chats` with a `list`"


def recognise(start: FileStart) -> bool:
    """Return whether a file is a JSON object: the parts of a long export come late."""
    return start.json is not None and start.json.form != "list"


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of an export; a missing text becomes an empty string.

    Values that Telegram Desktop writes without quotes are mended. A message is linked to its
    original if the chat is a channel or a supergroup. Several exports may follow one another.
    Raises InvalidFile.
    """
    seen = _Seen()
    with path.open(encoding=FileStart(path).encoding) as file:
        stream = JsonStream(file, report)
        try:
            has_messages = yield from _read_chat(stream, report, seen)
            while has_messages and stream.peek() == "{":
                has_messages = yield from _read_chat(stream, report, seen)
            if stream.peek():
                raise ValueError("something follows the export")
        except (ValueError, RecursionError, OSError) as error:
            reason = f"at character {stream.position}: expected {_EXPECTED}; {reason_of(error)}"
        else:
            if has_messages and (seen.has_known or not seen.strange):
                return
            reason = f"expected a chat's export, such as {_EXPECTED}; {seen.described}"
    raise InvalidFile(f"{path}: {reason}")


@dataclass(slots=True)
class _Seen:
    """The parts of a file, for the error if it is no export."""

    keys: list[str] = field(default_factory=list)  # of the outermost object
    has_known: bool = False  # whether there are entries of known types
    strange: dict[str, Any] = field(default_factory=dict)  # the first entry of an unknown type

    @property
    def described(self) -> str:
        if self.strange:
            return f"the keys of its messages are {one_line(', '.join(self.strange))}"
        keys = f"keys {one_line(', '.join(self.keys))}" if self.keys else "no keys"
        return f"this is an object with {keys}"


@dataclass(frozen=True, slots=True)
class _Chat:
    key: str
    title: str | None
    address: str  # of its messages, without their ids; empty if it has none

    @classmethod
    def of(cls, members: dict[str, Any]) -> "_Chat":
        title = string(members.get("name")) or None
        number = string(members.get("id"))
        if not number:
            return cls(name_key(title), title, "")
        kind = members.get("type")
        kind = TELEGRAM_KINDS.get(kind, "user") if isinstance(kind, str) else "user"
        address = f"https://t.me/c/{number}/" if kind == "channel" else ""
        return cls(telegram_key(kind, number), title, address)


def _read_chat(
    stream: JsonStream, report: ReadReport, seen: _Seen
) -> Generator[Message, None, bool]:
    """Yield the messages of a chat or a list of chats; return whether there was either.

    The keys of the object are added to `seen`.
    """
    members: dict[str, Any] = {}
    early: list[Any] = []  # messages before the chat's id and type
    has_messages = False
    for key in stream.members():
        seen.keys.append(key)
        if key in _LISTS:
            has_messages = True
            yield from _read_chats(stream, report, seen)
        elif key == "messages":
            has_messages = True
            if "id" in members and "type" in members:
                chat = _Chat.of(members)
                for _ in stream.elements():
                    if message := _message(stream.value(), chat, report, seen):
                        yield message
            else:
                early += [stream.value() for _ in stream.elements()]
        else:
            members[key] = stream.value()
    chat = _Chat.of(members)
    for entry in early:
        if message := _message(entry, chat, report, seen):
            yield message
    return has_messages


def _read_chats(stream: JsonStream, report: ReadReport, seen: _Seen) -> Iterator[Message]:
    if stream.peek() == "[":
        for _ in stream.elements():
            yield from _read_chat(stream, report, seen)
        return
    for part in stream.members():
        if part == "list":
            for _ in stream.elements():
                yield from _read_chat(stream, report, seen)
        else:
            stream.value()


def _message(entry: Any, chat: _Chat, report: ReadReport, seen: _Seen) -> Message | None:
    if not isinstance(entry, dict):
        report.skip("entries that are no messages")
        return None
    kind = entry.get("type")
    if kind is None:
        return _plain_message(entry, chat, report, seen)
    if kind != "message":
        is_known = kind in ("service", "unsupported")
        report.skip(f"{kind} messages" if is_known else "entries of unknown types")
        if is_known:
            seen.has_known = True
        elif not seen.strange:
            seen.strange = entry
        return None
    seen.has_known = True
    identifier = string(entry.get("id"))
    text = text_of(entry.get("text") or entry.get("text_entities"))
    if not text or "poll" in entry:
        text = _with_poll(text, entry.get("poll")) or _instead_of_text(entry, report)
    replied = None if "reply_to_peer_id" in entry else entry.get("reply_to_message_id")
    return Message(
        identifier,
        text,
        chat.title,
        _time(entry, "date", report),
        chat.key,
        string(entry.get("from")) or None,
        chat.address + identifier if chat.address and identifier.isdecimal() else None,
        string(replied) or None,
        _edited(entry),
    )


def _plain_message(
    entry: dict[str, Any], chat: _Chat, report: ReadReport, seen: _Seen
) -> Message | None:
    """Return the message of an entry that another program has written, in this chat."""
    if not is_row(entry):
        report.skip("entries without an identifier and a text")
        seen.strange = seen.strange or entry
        return None
    seen.has_known = True
    message = read_row(entry, report)
    if message is None or message.source:
        return message
    return replace(message, channel=chat.title or message.channel, source=chat.key)


def _time(entry: dict[str, Any], name: str, report: ReadReport) -> datetime | None:
    time = read_time(entry.get(f"{name}_unixtime"))
    return time or time_of(entry.get(name), report)


def _edited(entry: dict[str, Any]) -> datetime | None:
    if "edited" not in entry and "edited_unixtime" not in entry:
        return None
    time = read_time(entry.get("edited_unixtime")) or read_time(entry.get("edited"))
    return time if time and time.year > 1970 else None  # earlier versions wrote 1970: never edited


def _with_poll(text: str, poll: Any) -> str:
    """Return the text, the question and the answers of a poll, each in a line."""
    if not isinstance(poll, dict):
        return text
    answers = poll.get("answers")
    lines = [text, text_of(poll.get("question"))]
    lines += [f"- {text_of(answer)}" for answer in (answers if isinstance(answers, list) else [])]
    return "\n".join(filter(None, lines))


def _instead_of_text(entry: dict[str, Any], report: ReadReport) -> str:
    """Return the buttons' words and addresses, or a document's name; otherwise an empty string."""
    rows = entry.get("inline_bot_buttons")
    buttons = [
        with_link(text_of(button.get("text")), button.get("data"))
        for row in (rows if isinstance(rows, list) else [])
        for button in (row if isinstance(row, list) else [])
        if isinstance(button, dict) and button.get("type") in ("url", "auth")
    ]
    if any(buttons):
        report.note("messages without a text have the words and addresses of their buttons")
        return "\n".join(filter(None, buttons))
    name = string(entry.get("file_name"))
    if not name or entry.get("media_type", "document") != "document":
        return ""
    report.note("documents without a text have their file names as texts")
    return name
