"""Telegram Desktop's `result.json`, read as a stream: an export of every chat can be gigabytes."""

import json
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from feedsieve.message import Message, UnreadableFile, in_utc

_CHUNK = 2**16  # characters read at a time
_LONGEST_VALUE = 2**26  # characters in one message
_EXPECTED = "Telegram Desktop's result.json: one chat with `messages`, or `chats` with a `list`"


def read_telegram(path: Path) -> Iterator[Message]:
    """Yield the messages of an export; a text that is missing is empty.

    Identifiers are those of the chat, and `CHAT:MESSAGE` in an export of several chats, which may
    use the same ones. Raises UnreadableFile.
    """
    with path.open(encoding="utf-8-sig") as file:
        stream = _JsonStream(file)
        try:
            yield from _read_export(stream)
        except UnicodeDecodeError:
            raise UnreadableFile(
                f"{path}, after character {stream.position}: expected UTF-8 text"
            ) from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else error
            raise UnreadableFile(
                f"{path}, at character {stream.position}: expected {_EXPECTED}; {reason}"
            ) from error
        except OSError as error:
            raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def _read_export(stream: "_JsonStream") -> Iterator[Message]:
    found = yield from _read_chat(stream, namespaced=False)
    if stream.peek():
        raise ValueError("something follows the export")
    if not found:
        raise ValueError("neither is here")


def _read_chat(stream: "_JsonStream", *, namespaced: bool) -> Generator[Message, None, bool]:
    """Yield the messages of one chat, or of the list of chats; return whether there was either."""
    chat: dict[str, Any] = {}
    early: list[dict[str, Any]] = []  # messages that come before the chat's own name
    found = False
    for key in stream.members():
        if key in ("chats", "left_chats"):
            found = True
            for part in stream.members():
                if part == "list":
                    for _ in stream.elements():
                        yield from _read_chat(stream, namespaced=True)
                else:
                    stream.value()
        elif key == "messages":
            found = True
            for _ in stream.elements():
                if "id" in chat and "name" in chat:
                    yield from _read_entry(stream.value(), chat, namespaced)
                else:
                    early.append(stream.value())
        else:
            chat[key] = stream.value()
    for entry in early:
        yield from _read_entry(entry, chat, namespaced)
    return found


def _read_entry(entry: dict[str, Any], chat: dict[str, Any], namespaced: bool) -> Iterator[Message]:
    if entry["type"] != "message":
        return
    name = chat.get("name")
    yield Message(
        id=f"{chat['id']}:{entry['id']}" if namespaced else str(entry["id"]),
        text=_text(entry.get("text", entry.get("text_entities")) or ""),
        channel=None if name is None else str(name),
        time=_time(entry),
    )


def _text(text: str | list[str | dict[str, str]]) -> str:
    if isinstance(text, str):
        return text
    return "".join(part if isinstance(part, str) else part["text"] for part in text)


def _time(entry: dict[str, str]) -> datetime | None:
    if "date_unixtime" in entry:
        return datetime.fromtimestamp(int(entry["date_unixtime"]), UTC)
    return in_utc(datetime.fromisoformat(entry["date"])) if "date" in entry else None


class _JsonStream:
    """JSON read piece by piece: the caller walks objects and arrays, and takes values whole."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._passed = 0

    @property
    def position(self) -> int:
        """How many characters of the file have been taken."""
        return self._passed + self._at

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
        """Take one value, whatever it is. Raises ValueError."""
        self.peek()
        while True:
            failure = None
            end = len(self._buffer)
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                failure = error
            # A number may go on behind the buffer's end, and `1` is read where `1e+` stands there.
            if end + 2 < len(self._buffer) or not self._read():
                break
        if failure:
            raise ValueError(f"{failure.msg} {failure.pos - self._at} characters on")
        self._at = end
        return value

    def members(self) -> Iterator[str]:
        """Take an object, key by key; the caller takes each value before the next key."""
        for _ in self._parts("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key is not a string")
            self._take(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Take an array; the caller takes each element in turn."""
        return self._parts("[", "]")

    def _parts(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self._at += 1
                return
            self._take(",")

    def _take(self, wanted: str) -> None:
        found = self.peek()
        if found != wanted:
            raise ValueError(f"`{found}` stands where `{wanted}` should" if found else "it ends")
        self._at += 1

    def _read(self) -> bool:
        kept = self._buffer[self._at :]
        if len(kept) > _LONGEST_VALUE:
            return False
        chunk = self._file.read(max(_CHUNK, len(kept)))
        if chunk:
            self._passed += self._at
            self._buffer, self._at = kept + chunk, 0
        return bool(chunk)
