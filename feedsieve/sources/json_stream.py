"""JSON read as a stream: exports can have gigabytes."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from feedsieve.sources.json_mending import UnmendableJson, mend
from feedsieve.sources.report import ReadReport

SPACE = " \t\r\n\ufeff"  # a byte order mark may stand twice
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=[^ \t\r\n\ufeff\]}])")  # an item follows
_CHUNK = 2**16  # characters in one read
_MAX_VALUE = 2**26  # characters in one message
_LONGEST_TOKEN = 12  # characters that show that a token goes on: -Infinity, \ud83c\udfe0


class JsonStream:
    """A JSON reader that walks objects and arrays piece by piece, and decodes single values.

    Faults that exports are known to have are mended and counted in the report.
    `docs/data.md` compares it with ijson.
    """

    def __init__(self, file: TextIO, report: ReadReport | None = None) -> None:
        self._file = file
        self._report = report or ReadReport()
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
                if self._buffer[self._at] not in SPACE:
                    return self._buffer[self._at]
                self._at += 1
            if not self._read():
                return ""

    def value(self) -> Any:
        """Take and decode one value. Raises ValueError."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                failure = error
                try:
                    if not self._may_continue(error) and (mended := self._mend()):
                        return mended[0]
                    if self._read():
                        continue
                    if mended := self._mend():
                        return mended[0]
                except UnmendableJson:
                    pass
            else:
                # A number may continue after the buffer; of `1e+` the decoder reads the `1`.
                if end + 2 < len(self._buffer) or not self._read():
                    self._at = end
                    return value
                continue
            place = f"{failure.pos - self._at} characters on"
            if self._may_continue(failure):
                raise ValueError(f"{failure.msg} {place}, where the file ends: it is cut off")
            raise ValueError(f"{failure.msg} {place}")

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
            while True:
                if comma := _COMMA.match(self._buffer, self._at):
                    self._at = comma.end()
                elif self.peek() == closing:
                    break
                else:
                    self._take(",")
                    if self.peek() == closing:
                        self._report.mend("trailing commas")
                        break
                yield
        self._at += 1

    def _take(self, wanted: str) -> None:
        character = self.peek()
        if not character:
            raise ValueError("the file ends: it is cut off")
        if character != wanted:
            shown = character if character.isprintable() else f"U+{ord(character):04X}"
            raise ValueError(f"`{shown}` stands where `{wanted}` should")
        self._at += 1

    def _may_continue(self, failure: json.JSONDecodeError) -> bool:
        """Return whether the buffer's end may be the reason."""
        is_open = failure.msg.startswith("Unterminated string")
        return is_open or failure.pos + _LONGEST_TOKEN > len(self._buffer)

    def _mend(self) -> tuple[Any] | None:
        """Take and decode a value with faults; None if the buffer has not all of it.

        Raises UnmendableJson.
        """
        mended = mend(self._buffer, self._at)
        if mended is None:
            return None
        try:
            value = json.loads(mended.text)
        except json.JSONDecodeError as error:
            raise UnmendableJson from error
        self._at = mended.end
        for fault, count in mended.faults.items():
            self._report.mend(fault, count)
        return (value,)

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
