"""Messages in CSV files."""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.columns import ROLES, Repeated, compact, find, listed
from feedsieve.sources.keys import bot_api_key, name_key
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_rows import CsvFile
from feedsieve.sources.tables.identifiers import MISSING, are_floats, check, whole
from feedsieve.sources.tables.times import TimeColumn, UndecidedOrder

_EXPECTED = (
    "an SQLite chat dump, Telegram Desktop's result.json, or CSV with columns msg_id,msg or id,text"
)
_NUMBERS = re.compile(r"[\d\s.,:+-]*\d[\d\s.,:+-]*")
_CLOCK = re.compile(r"\s*\d{1,2}:\d\d.*")
_LOST = frozenset({"#NAME?", "#ИМЯ?", "#VALUE!", "#ЗНАЧ!", "#REF!", "#ССЫЛКА!"})
_LONGEST_NAME = 60  # characters
_SAMPLE_ROWS = 100


def read_csv(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a CSV file with a header; a missing text becomes an empty string.

    Columns are found by their names in any case, see `columns.ROLES`; an identifier and a text are
    needed. The source is that of the chat's id or title, empty if the file has neither. Raises
    InvalidFile.
    """
    file = CsvFile(path, report)
    columns = _find_columns(file)
    _note_unused(file, columns, report)
    identifier, text = columns["id"], columns["text"]
    channel, chat, sender, link, reply_to = map(
        columns.get, ("channel", "chat", "sender", "link", "reply_to")
    )
    times = _Times.find(file, columns, "time", report)
    edits = _Times.find(file, columns, "edited", report)
    has_floats = are_floats(row[identifier] for _line, row in file.rows(ReadReport()))
    if has_floats:
        report.note(f"{file.header[identifier]}: 1.0 is read as 1")
    nuls = 0
    last_channel, title, source = None, None, ""
    for line, row in file.rows():
        try:
            own = row[identifier]
            if "+" in own or own in MISSING:
                own = check(own, file.header[identifier])
            if chat is not None:
                title = _value(row, channel)
                source = _key(row[chat], title)
            elif channel is not None and row[channel] != last_channel:
                last_channel = row[channel]
                title = _value(row, channel)
                source = name_key(title)
            message = Message(
                id=whole(own) if has_floats else own,
                text=row[text],
                channel=title,
                time=times.of(row) if times else None,
                source=source,
                sender=_value(row, sender) if sender is not None else None,
                link=_value(row, link) if link is not None else None,
                reply_to=_reference(row[reply_to]) if reply_to is not None else None,
                edited=edits.of(row) if edits else None,
            )
        except (ValueError, OverflowError) as error:
            raise InvalidFile(f"{path}, line {line}: {error}") from error
        if message.text.startswith("#") and message.text in _LOST:
            report.skip("texts that a spreadsheet has replaced by an error")
            continue
        nuls += "\0" in message.text
        yield message
    if nuls:
        report.note(f"NUL characters left out of {nuls:,} text(s)")


class _Times:
    """A column of times in a file, with another one of dates if it has the time of day only."""

    def __init__(self, file: CsvFile, index: int, date: int | None, report: ReadReport) -> None:
        self._file, self._index, self._date = file, index, date
        self._column = TimeColumn(report, file.header[index])

    @classmethod
    def find(
        cls, file: CsvFile, columns: dict[str, int], role: str, report: ReadReport
    ) -> "_Times | None":
        """Return the times of a role, or None if there is no such column."""
        if role not in columns:
            return None
        return cls(file, columns[role], columns.get(f"{role} date"), report)

    def of(self, row: list[str]) -> datetime | None:
        """Return the time of a row. Raises ValueError."""
        value = row[self._index] if self._date is None else self._value(row)
        try:
            return self._column.parse(value)
        except UndecidedOrder:
            rows = self._file.rows(ReadReport())
            self._column.decide_order(self._value(row) for _line, row in rows)
            return self._column.parse(value)

    def _value(self, row: list[str]) -> str:
        value = row[self._index]
        if self._date is not None and _CLOCK.fullmatch(value):
            return f"{row[self._date].strip()} {value.strip()}"
        return value


def _find_columns(file: CsvFile) -> dict[str, int]:
    """Return the indices of columns by role. Raises InvalidFile."""
    place = f"{file.path}, line {file.header_line}"
    columns = {}
    try:
        for role, names in ROLES.items():
            if role != "label" and (index := find(file.header, names)) is not None:
                columns[role] = index
        if "time" in columns and compact(file.header[columns["time"]]) in ("time", "время"):
            date = find(file.header, ("date", "дата"))
            columns |= {} if date is None else {"time date": date}
    except Repeated as error:
        raise InvalidFile(f"{place}: {error}") from error
    if {"id", "text"} <= columns.keys():
        return columns
    raise InvalidFile(
        f"{place}: expected {_EXPECTED}; the columns are {listed(file.header)}{_advice(file)}"
    )


def _advice(file: CsvFile) -> str:
    if any(_NUMBERS.fullmatch(name) or len(name) > _LONGEST_NAME for name in file.header):
        header = file.dialect.delimiter.join(("msg_id", "msg"))
        return f"; there is no header: add a first line that names the columns, such as {header!r}"
    return ""


def _note_unused(file: CsvFile, columns: dict[str, int], report: ReadReport) -> None:
    used = set(columns.values())
    unused = [name for index, name in enumerate(file.header) if name and index not in used]
    if unnamed := [index for index, name in enumerate(file.header) if not name]:
        rows = islice(file.records(ReadReport()), _SAMPLE_ROWS)
        if any(row[index] for _line, row in rows for index in unnamed if index < len(row)):
            unused.append("one without a name")
    if unused:
        report.note(f"columns not used: {', '.join(unused)[:200]}")


def _value(row: list[str], index: int | None) -> str | None:
    if index is None:
        return None
    value = row[index].strip()
    return None if value in MISSING else value


def _reference(value: str) -> str | None:
    return whole(check(value, "reply_to")) or None


def _key(chat: str, title: str | None) -> str:
    """Return the key of a chat by its id, which is Telegram's if it is negative."""
    chat = whole(check(chat, "the chat's id")).strip()
    if chat.startswith("-") and chat[1:].isdecimal():
        return bot_api_key(int(chat))
    return name_key(chat or title)
