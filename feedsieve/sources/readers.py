"""Files read as messages: each by the first format that recognises it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from feedsieve.message import Message, clean
from feedsieve.sources.chats import (
    discord,
    json_rows,
    refused,
    slack,
    sqlite_messages,
    telegram,
    whatsapp,
)
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart
from feedsieve.sources.tables import delimited


class Format(Protocol):
    """A module that recognises and reads one kind of file."""

    NAME: str  # for --format
    TITLE: str  # in reports

    def recognise(self, start: FileStart) -> bool:
        """Return whether the start of a file has this format."""

    def read(self, path: Path, report: ReadReport) -> Iterator[Message]:
        """Yield messages; raise InvalidFile if the file is damaged or has another format."""


_FORMATS: tuple[Format, ...] = (
    sqlite_messages,
    refused,
    whatsapp,
    discord,
    slack,
    json_rows,
    telegram,  # any other object
    delimited,  # anything else
)
FORMATS = {form.NAME: form for form in _FORMATS if form is not refused}
"""The formats by name."""


class Messages(Iterator[Message]):
    """The messages of a file that have an identifier and a text; the report counts the others."""

    def __init__(self, candidates: Iterator[Message], report: ReadReport | None = None) -> None:
        self._candidates = candidates
        self.report = report or ReadReport()

    def __next__(self) -> Message:
        for candidate in self._candidates:
            message = clean(candidate)
            if not message.is_blank:
                return message
            self.report.skip("without text" if message.id else "without an identifier")
        raise StopIteration


def read_messages(path: Path, form: Format | None = None) -> Messages:
    """Return the messages of a file as a lazy iterator, in its order.

    `form` is one of `FORMATS`; without it, the content decides, not the name. The identifiers are
    those within the source; the source is empty if the file does not name it.

    Raises InvalidFile immediately if the file is missing or empty, and during iteration if it has
    none of the formats or is damaged.
    """
    start = FileStart(path)
    form = form or next(form for form in _FORMATS if form.recognise(start))
    report = ReadReport()
    report.format = form.TITLE
    return Messages(form.read(path, report), report)
