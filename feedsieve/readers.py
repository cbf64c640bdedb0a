"""Files that people have messages in, read as messages."""

import csv
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from feedsieve import dump
from feedsieve.message import Message, UnreadableFile, clean, in_utc
from feedsieve.telegram import read_telegram

__all__ = ["Message", "Messages", "UnreadableFile", "read_messages"]

_IDENTIFIER_COLUMNS = ("msg_id", "id")
_TEXT_COLUMNS = ("msg", "text")
_LONGEST_FIELD = 2**31 - 1  # of a CSV file, in characters; Python's own limit is 131,072


class Messages(Iterator[Message]):
    """The messages of one file in its order, without those that have no identifier or no text.

    `skipped` says how many were left out so far.
    """

    def __init__(self, candidates: Iterator[Message]) -> None:
        self._candidates = candidates
        self.skipped = 0

    def __next__(self) -> Message:
        for candidate in self._candidates:
            message = clean(candidate)
            if not message.is_blank:
                return message
            self.skipped += 1
        raise StopIteration


def read_messages(path: Path) -> Messages:
    """Return the messages of a file, read as they are asked for.

    The file is an SQLite chat dump, Telegram Desktop's `result.json`, or CSV in UTF-8 with a
    header: `msg_id,msg` or `id,text`, and if present `channel` and `time` (ISO 8601, or seconds
    since 1970; UTC where no zone is given). Its content says which, not its name.

    Raises UnreadableFile at once for a file that is missing or empty, and while the messages are
    read for one that is none of these or is damaged.
    """
    try:
        if dump.is_sqlite(path):
            return Messages(_read_dump(path))
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    if not start:
        raise UnreadableFile(f"{path}: expected messages; the file is empty")
    return Messages(read_telegram(path) if start.startswith(b"{") else _read_csv(path))


def _read_dump(path: Path) -> Iterator[Message]:
    try:
        with dump.open_read_only(path) as connection:
            tables = dump.raw_tables(connection)
            if not tables:
                raise UnreadableFile(f"{path}: expected a table {dump.RAW_TABLES}")
            for table in tables:
                yield from dump.rows(connection, table)
    except (sqlite3.Error, OSError) as error:
        raise UnreadableFile(f"{path}: expected an SQLite database; {error}") from error


def _read_csv(path: Path) -> Iterator[Message]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            identifier = _column(header, _IDENTIFIER_COLUMNS)
            text = _column(header, _TEXT_COLUMNS)
            channel = _column(header, ("channel",))
            time = _column(header, ("time",))
            if identifier is None or text is None:
                raise ValueError(
                    "expected an SQLite chat dump, Telegram Desktop's result.json, or CSV with"
                    f" columns msg_id,msg or id,text; the columns are {','.join(header)[:200]!r}"
                )
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"expected {len(header)} fields, as in the header, not {len(row)}"
                    )
                yield Message(
                    id=row[identifier],
                    text=row[text],
                    channel=None if channel is None else row[channel],
                    time=None if time is None else _time(row[time].strip()),
                )
        except UnicodeDecodeError as error:
            raise UnreadableFile(
                f"{path}, after line {reader.line_num}: expected UTF-8 text; {error.reason}"
            ) from error
        except csv.Error as error:
            raise UnreadableFile(
                f"{path}, line {reader.line_num}: expected CSV; {error}"
            ) from error
        except (ValueError, OverflowError, OSError) as error:
            raise UnreadableFile(f"{path}, line {reader.line_num}: {error}") from error


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _time(value: str) -> datetime | None:
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
