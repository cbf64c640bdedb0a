"""The start of a file, by which its format is recognised."""

import codecs
import json
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from feedsieve.message import InvalidFile
from feedsieve.sources.json_stream import SPACE, JsonStream

_BYTES = 2**16
_MARKS = {  # UTF-32 first: its little-endian mark begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


@dataclass(frozen=True, slots=True)
class JsonStart:
    """The outer form of a JSON file, and the first object in it as far as it was read.

    A single object of which the start has all, and after which nothing follows, is an object.
    """

    form: Literal["object", "list", "lines"]
    first: dict[str, Any] = field(default_factory=dict)


class FileStart:
    """The first 64 KiB of a file. Raises InvalidFile if there is no file or nothing in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = file.read(_BYTES)
        except OSError as error:
            raise InvalidFile(f"{path}: {error.strerror or error}") from error
        if not self.text:
            raise InvalidFile(f"{path}: the file is empty; export or copy it again")

    @cached_property
    def encoding(self) -> str:
        """The encoding by the byte order mark, or by where the zeros are; otherwise UTF-8."""
        for mark, encoding in _MARKS.items():
            if self.data.startswith(mark):
                return encoding
        zeros = [byte == 0 for byte in self.data[:4]]
        if zeros == [False, True] * 2:
            return "utf-16-le"
        if zeros == [True, False] * 2:
            return "utf-16-be"
        return "utf-8"

    @cached_property
    def text(self) -> str:
        """The text without a byte order mark and space before it."""
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(self.data)
        return text.lstrip(SPACE)

    @cached_property
    def is_unicode(self) -> bool:
        """Whether the bytes are text in the encoding, apart from a character that the end cuts."""
        try:
            codecs.getincrementaldecoder(self.encoding)().decode(self.data)
        except UnicodeDecodeError:
            return False
        return True

    @cached_property
    def json(self) -> JsonStart | None:
        """The form of a JSON file; None for other files."""
        if self.text.startswith("["):
            stream = JsonStream(StringIO(self.text))
            try:
                for _ in stream.elements():
                    return JsonStart("list", _partial_object(stream))
            except ValueError:
                return None
            return JsonStart("list")
        if not self.text.startswith("{"):
            return None
        stream = JsonStream(StringIO(self.text))
        try:
            first = stream.value()
            follows = stream.peek()
        except (ValueError, RecursionError):
            return JsonStart("object", _partial_object(JsonStream(StringIO(self.text))))
        return JsonStart("lines" if follows == "{" else "object", first)


def _partial_object(stream: JsonStream) -> dict[str, Any]:
    """Return the members of an object that are complete; None for the value of the next one."""
    members: dict[str, Any] = {}
    try:
        if stream.peek() == "{":
            for name in stream.members():
                members[name] = None
                members[name] = stream.value()
    except (ValueError, RecursionError):
        pass
    return members


def one_line(value: object, longest: int = 200) -> str:
    """Return a value as it can stand in an error: one line without control characters."""
    return json.dumps(str(value)[:longest], ensure_ascii=False)[1:-1]


def reason_of(error: Exception) -> str:
    """Return why a file cannot be read, in words for its user."""
    if isinstance(error, UnicodeDecodeError):
        return (
            "expected UTF-8 text; convert it (iconv -f cp1251 -t utf-8 IN > OUT), or drop what is"
            " damaged (iconv -c -f utf-8 -t utf-8 IN > OUT)"
        )
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
