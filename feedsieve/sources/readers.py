"""Files read as messages: CSV, SQLite chat dumps and Telegram exports."""

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from feedsieve.message import InvalidFile, Message, clean, in_utc
from feedsieve.sources import sqlite_dump
from feedsieve.sources.csv_rows import read_rows
from feedsieve.sources.report import ReadReport
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

    The file is an SQLite chat dump, Telegram Desktop's `result.json`, or CSV in UTF-8 with a
    header: `msg_id,msg` or `id,text`, and if present `channel` and `time` (ISO 8601, or seconds
    since 1970; UTC by default). Its content decides, not its name.

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
    return Messages(read_telegram(path) if start.startswith(b"{") else _read_csv(path))


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


def _read_csv(path: Path) -> Iterator[Message]:
    rows = read_rows(path)
    line, header = next(rows)
    identifier = _column(header, "msg_id", "id")
    text = _column(header, "msg", "text")
    channel = _column(header, "channel")
    time = _column(header, "time")
    if identifier is None or text is None:
        raise InvalidFile(
            f"{path}, line {line}: expected an SQLite chat dump, Telegram Desktop's result.json, or"
            " CSV with columns msg_id,msg or id,text;"
            f" the columns are {','.join(header)[:200]!r}"
        )
    for line, row in rows:
        try:
            parsed = None if time is None else _parse_time(row[time].strip())
        except (ValueError, OverflowError) as error:
            raise InvalidFile(f"{path}, line {line}: {error}") from error
        yield Message(row[identifier], row[text], None if channel is None else row[channel], parsed)


def _column(header: list[str], *names: str) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _parse_time(value: str) -> datetime | None:
    if not value:
        return None
    if re.fullmatch(r"-?\d{9,}(\.\d+)?", value, re.ASCII):
        return datetime.fromtimestamp(float(value), UTC)
    try:
        return in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise ValueError(
            f"expected a time in ISO 8601 or seconds since 1970: {value[:100]!r}"
        ) from None
