"""CSV files of messages."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from feedsieve.message import InvalidFile, Message, in_utc
from feedsieve.sources.csv_rows import read_rows
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart

NAME = "csv"
TITLE = "CSV"


def recognise(start: FileStart) -> bool:
    """Return True: what is nothing else is read as CSV, whose errors name the columns."""
    return True


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a CSV file. Raises InvalidFile."""
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
