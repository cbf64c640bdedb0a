"""Files read as messages: CSV, SQLite chat dumps and Telegram exports."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from feedsieve.message import InvalidFile, Message, clean
from feedsieve.sources import sqlite_dump
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables import read_csv
from feedsieve.sources.telegram import read_telegram


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


def read_messages(path: Path) -> Messages:
    """Return the messages of a file as a lazy iterator, in its order.

    The file is an SQLite chat dump, Telegram Desktop's `result.json`, or CSV with a header (see
    `tables.read_csv`). Its content decides, not its name.

    Raises InvalidFile immediately if the file is missing or empty, and during iteration if it has
    none of these formats or is damaged.
    """
    try:
        if sqlite_dump.is_sqlite(path):
            return Messages(_read_dump(path))
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error
    if not start:
        raise InvalidFile(f"{path}: expected messages; the file is empty")
    if start.startswith(b"{"):
        return Messages(read_telegram(path))
    report = ReadReport()
    return Messages(read_csv(path, report), report)


def _read_dump(path: Path) -> Iterator[Message]:
    try:
        with sqlite_dump.open_read_only(path) as connection:
            tables = sqlite_dump.raw_tables(connection)
            if not tables:
                raise InvalidFile(f"{path}: expected a table {sqlite_dump.RAW_TABLES}")
            for table in tables:
                yield from sqlite_dump.rows(connection, table)
    except (sqlite3.Error, OSError) as error:
        raise InvalidFile(f"{path}: expected an SQLite database; {error}") from error
