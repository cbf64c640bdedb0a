"""Telegram Desktop's `result.json`, read as a stream: exports can have gigabytes."""

import json
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from feedsieve.message import InvalidFile, Message, in_utc

_CHUNK = 2**16  # characters in one read
_MAX_VALUE = 2**26  # characters in one message
_EXPECTED = "Telegram Desktop's result.json: one chat with `messages`, or `chats` with a `list`"


def read_telegram(path: Path) -> Iterator[Message]:
    """Yield the messages of an export; a missing text becomes an empty string.

    Identifiers are those of the chat, or `CHAT:MESSAGE` in an export of several chats, in which
    they repeat. Raises InvalidFile.
    """
    with path.open(encoding="utf-8-sig") as file:
        stream = _JsonStream(file)
        try:
            has_messages = yield from _read_chat(stream, namespaced=False)
            if stream.peek():
                raise ValueError("something follows the export")
            if not has_messages:
                raise ValueError("neither is here")
        except UnicodeDecodeError:
            reason = f"{path}, after character {stream.position}: expected UTF-8 text"
        except OSError as error:
            reason = f"{path}: {error.strerror or error}"
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            cause = f"there is no {error}" if isinstance(error, KeyError) else error
            reason = f"{path}, at character {stream.position}: expected {_EXPECTED}; {cause}"
        else:
            return
    raise InvalidFile(reason)


def _read_chat(stream: "_JsonStream", *, namespaced: bool) -> Generator[Message, None, bool]:
    """Yield the messages of a chat or a list of chats; return whether there was either."""
    chat: dict[str, Any] = {}
    early: list[dict[str, Any]] = []  # messages before the chat's id and name
    has_messages = False
    for key in stream.members():
        if key in ("chats", "left_chats"):
            has_messages = True
            for part in stream.members():
                if part == "list":
                    for _ in stream.elements():
                        yield from _read_chat(stream, namespaced=True)
                else:
                    stream.value()
        elif key == "messages":
            has_messages = True
            for _ in stream.elements():
                if "id" in chat and "name" in chat:
                    yield from _read_entry(stream.value(), chat, namespaced)
                else:
                    early.append(stream.value())
        else:
            chat[key] = stream.value()
    for entry in early:
        yield from _read_entry(entry, chat, namespaced)
    return has_messages


def _read_entry(entry: dict[str, Any], chat: dict[str, Any], namespaced: bool) -> Iterator[Message]:
    if entry["type"] != "message":
        return
    text = entry.get("text", entry.get("text_entities")) or ""
    if not isinstance(text, str):
        text = "".join(part if isinstance(part, str) else part["text"] for part in text)
    time = None
    if "date_unixtime" in entry:
        time = datetime.fromtimestamp(int(entry["date_unixtime"]), UTC)
    elif "date" in entry:
        time = in_utc(datetime.fromisoformat(entry["date"]))
    name = chat.get("name")
    yield Message(
        id=f"{chat['id']}:{entry['id']}" if namespaced else str(entry["id"]),
        text=text,
        channel=None if name is None else str(name),
        time=time,
    )


class _JsonStream:
    """A JSON reader that walks objects and arrays piece by piece, and decodes single values.

    `docs/data.md` compares it with ijson.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._before_buffer = 0

    @property
    def position(self) -> int:
        """Number of characters read and decoded."""
        return self._before_buffer + self._at

    def peek(self) -> str:
        """Return the next character that is not space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in " \t\r\n":
                    return self._buffer[self._at]
                self._at += 1
            if not self._read():
                return ""

    def value(self) -> Any:
        """Take and decode one value. Raises ValueError."""
        self.peek()
        while True:
            failure = None
            end = len(self._buffer)
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                failure = error
            # A number may continue after the buffer, and of `1e+` the decoder reads the `1`.
            if end + 2 < len(self._buffer) or not self._read():
                break
        if failure:
            raise ValueError(f"{failure.msg} {failure.pos - self._at} characters on")
        self._at = end
        return value

    def members(self) -> Iterator[str]:
        """Walk an object: yield each key; the caller takes its value before the next key."""
        for _ in self._items("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key is not a string")
            self._take(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Walk an array: yield before each element, which the caller takes."""
        return self._items("[", "]")

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() != closing:
            yield
            while self.peek() != closing:
                self._take(",")
                yield
        self._at += 1

    def _take(self, wanted: str) -> None:
        character = self.peek()
        if character != wanted:
            raise ValueError(
                f"`{character}` stands where `{wanted}` should" if character else "it ends"
            )
        self._at += 1

    def _read(self) -> bool:
        """Append a chunk to the rest of the buffer; return whether there was one."""
        rest = self._buffer[self._at :]
        if len(rest) > _MAX_VALUE:
            return False
        chunk = self._file.read(max(_CHUNK, len(rest)))
        if chunk:
            self._before_buffer += self._at
            self._buffer, self._at = rest + chunk, 0
        return bool(chunk)
