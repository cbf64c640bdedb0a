"""Faults in JSON that exports are known to have, mended."""

import re
from collections import Counter
from dataclasses import dataclass

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LITERAL = re.compile(
    r"(?:true|false|null|NaN|-?Infinity|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"(?=[ \t\r\n]*(?:[,\]}]|$))"
)
# A value without quotes, up to where the object or array goes on or ends.
_BARE = {
    "}": re.compile(r'[^"\n]*?(?=[ \t\r\n]*(?:,?[ \t\r\n]*}[ \t\r\n]*(?:[,\]}]|$)|,[ \t\r\n]*"))'),
    "]": re.compile(r'[^"\n]*?(?=[ \t\r\n]*(?:][ \t\r\n]*(?:[,\]}]|$)|,))'),
}
_BARE_TO_THE_END = re.compile(r'[^"\n]*[ \t\r\n]*(?:,[ \t\r\n]*)?\Z')
_BAD_ESCAPE = re.compile(r'\\(?:u(?![0-9a-fA-F]{4})|(?![u"\\/bfnrt]))|(\\.)', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")
_PYTHON = {"True": "true", "False": "false", "None": "null", "": "null", "undefined": "null"}


class UnmendableJson(ValueError):
    """JSON with a fault of another kind."""


class _CutOff(Exception):
    """The text ends within the value."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A JSON value in correct form, where it ends in the text, and the faults it had."""

    text: str
    end: int
    faults: Counter[str]


def mend(text: str, start: int = 0) -> Mended | None:
    """Return the JSON value at `start`, mended; None if the text ends within it.

    Mended are values without quotes (Telegram Desktop writes file names so), backslashes that
    escape nothing, line ends and other control characters in strings, and commas before the end of
    an object or array. A correct value is returned as it is. Raises UnmendableJson.
    """
    work = _Mending(text, start)
    try:
        work.run()
    except _CutOff:
        return None
    return Mended("".join(work.parts), work.at, work.faults)


class _Mending:
    def __init__(self, text: str, start: int) -> None:
        self.at = start
        self.parts: list[str] = []
        self.faults: Counter[str] = Counter()
        self._text = text
        self._closers: list[str] = []  # of the objects and arrays around

    def run(self) -> None:
        self._value()
        while self._closers:
            closer = self._closers[-1]
            character = self._next()
            if character == ",":
                comma = len(self.parts)
                self._take()
                while self._next() == ",":
                    self.at += 1
                    self.faults["missing values"] += 1
                if self._next() == closer:
                    self.parts[comma] = ""
                    self.faults["trailing commas"] += 1
                else:
                    self._member(closer)
            elif character == closer:
                self._take()
                self._closers.pop()
            else:
                raise UnmendableJson

    def _value(self) -> None:
        character = self._next()
        if character == '"':
            self._string()
        elif character in "{[":
            self._take()
            closer = "}" if character == "{" else "]"
            self._closers.append(closer)
            if self._next() == closer:
                self._take()
                self._closers.pop()
            else:
                self._member(closer)
        elif found := _LITERAL.match(self._text, self.at):
            if found.end() == len(self._text):
                raise _CutOff
            self._add(found[0], found.end())
        else:
            self._bare()

    def _member(self, closer: str) -> None:
        """Take an element of an array, or a key and its value."""
        if closer == "}":
            if self._next() != '"':
                raise UnmendableJson
            self._string()
            if self._next() != ":":
                raise UnmendableJson
            self._take()
        self._value()

    def _bare(self) -> None:
        if not self._closers:
            raise UnmendableJson
        found = _BARE[self._closers[-1]].match(self._text, self.at)
        if not found:
            if _BARE_TO_THE_END.match(self._text, self.at):
                raise _CutOff
            raise UnmendableJson
        value = found[0]
        if value in _PYTHON:
            self._add(_PYTHON[value], found.end())
        else:
            escaped = value.replace("\\", "\\\\")
            self._add(f'"{_CONTROL.sub(_escape, escaped)}"', found.end())
        self.faults["values without quotes" if value else "missing values"] += 1

    def _string(self) -> None:
        found = _STRING.match(self._text, self.at)
        if not found:
            raise _CutOff
        string = _BAD_ESCAPE.sub(lambda bad: bad[1] or "\\" + bad[0], found[0])
        bad_escapes = len(string) - len(found[0])
        if bad_escapes:
            self.faults["bad escapes"] += bad_escapes
        string, controls = _CONTROL.subn(_escape, string)
        if controls:
            self.faults["control characters in strings"] += controls
        self._add(string, found.end())

    def _next(self) -> str:
        """Take space; return the character after it."""
        space = _SPACE.match(self._text, self.at)
        if space and space[0]:
            self._add(space[0], space.end())
        if self.at >= len(self._text):
            raise _CutOff
        return self._text[self.at]

    def _take(self) -> None:
        self._add(self._text[self.at], self.at + 1)

    def _add(self, part: str, end: int) -> None:
        self.parts.append(part)
        self.at = end


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
