"""Rows of labelled messages: names of columns, and values read as messages, people and times."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feedsieve.errors import first_few, quote
from feedsieve.message import Message, clean
from feedsieve.sources.columns import PLACE, ROLES, compact, find, listed
from feedsieve.sources.identifiers import MISSING, are_floats, check, whole
from feedsieve.sources.keys import bot_api_key, given_key, name_key, title_of
from feedsieve.sources.label_studio import text_of
from feedsieve.sources.report import ReadReport
from feedsieve.sources.times import TimeColumn, UndecidedOrder

_ROLES: dict[str, tuple[str, ...]] = {
    "id": ROLES["id"],
    "text": (*ROLES["text"], "data"),  # of doccano
    "source": ("source", "sourcekey"),
    "chat": ROLES["chat"],
    "channel": tuple(name for name in ROLES["channel"] if name != "source"),
    "time": ROLES["time"],
    "label": ROLES["label"],
    "who": ("who", "annotator", "labeledby", "labelledby", "annotatedby"),
    "labelled": ("labeledat", "labelledat", "annotatedat"),
    "origin": ("origin",),
    "note": ("note", "comment"),
    "ground_truth": ("groundtruth", "isgroundtruth"),
}
_OF_LABELS = ("label", "who", "labelled", "origin", "note", "ground_truth")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Times:
    """The times in a column."""

    column: TimeColumn
    values: Sequence[str]

    def parse(self, value: str) -> datetime | None:
        try:
            return self.column.parse(value)
        except UndecidedOrder:
            self.column.decide_order(self.values)
            return self.column.parse(value)


@contextmanager
def _at(row: Row) -> Iterator[None]:
    """Put the place of a row before errors."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{row[PLACE]}: {error}") from error


class Records:
    """Rows whose columns are found by their names in any case; each row has its `PLACE`.

    Raises ValueError if there is no text, or a column that is needed twice.
    """

    def __init__(
        self, rows: Sequence[Row], report: ReadReport, *, is_of_messages: bool = False
    ) -> None:
        """`is_of_messages`: the rows are the data of tasks, and their labels are elsewhere."""
        self.rows = rows
        names = list(dict.fromkeys(name for row in rows for name in row if name != PLACE))
        self._columns: dict[str, str] = {}
        for role, known in _ROLES.items():
            if is_of_messages and role in _OF_LABELS:
                continue
            if (index := find(names, known)) is not None:
                self._columns[role] = names[index]
        self._choose_times()
        missing = [role for role in ("text", "label") if role not in self._columns]
        if rows and (missing and not (is_of_messages and missing == ["label"])):
            raise ValueError(
                f"expected msg_id, msg and label; there is no {missing[0]} in {listed(names)}"
            )
        self._has_float_ids = are_floats(self._values("id"))
        if self._has_float_ids:
            report.note(f"{self._columns['id']}: 1.0 is read as 1")
        self._times: dict[str, _Times] = {
            role: _Times(TimeColumn(report, self._columns[role]), self._values(role))
            for role in ("time", "labelled")
            if role in self._columns
        }
        self._note_unused(names, report)

    def text(self, row: Row, role: str) -> str:
        """Return the value of a role as text, empty if there is none."""
        value = text_of(row.get(self._columns[role])).strip() if role in self._columns else ""
        return "" if value in MISSING else value

    def label(self, row: Row) -> Any:
        """Return the label as it is in the file."""
        return row.get(self._columns["label"])

    def labelled_at(self, row: Row) -> datetime | None:
        """Return when the row was labelled. Raises ValueError."""
        with _at(row):
            return self._time(row, "labelled")

    def message(self, row: Row) -> Message:
        """Return the message of a row. Raises ValueError."""
        with _at(row):
            return self._message(row)

    def _message(self, row: Row) -> Message:
        own = text_of(row.get(self._columns["id"])) if "id" in self._columns else ""
        own = check(own.strip(), self._columns.get("id", "msg_id"))
        title = self.text(row, "channel") or None
        source = self._source(row, title)
        title = title or title_of(source)
        return clean(
            Message(
                id=whole(own) if self._has_float_ids else own,
                text=text_of(row.get(self._columns["text"])),
                channel=title,
                time=self._time(row, "time"),
                source=source,
            )
        )

    def _source(self, row: Row, title: str | None) -> str:
        if source := self.text(row, "source"):
            return given_key(source)
        chat = whole(check(self.text(row, "chat"), "the chat's id"))
        if chat.startswith("-") and chat[1:].isdecimal():
            return bot_api_key(int(chat))
        return name_key(chat or title)

    def _time(self, row: Row, role: str) -> datetime | None:
        times = self._times.get(role)
        return times.parse(text_of(row.get(self._columns[role]))) if times else None

    def _values(self, role: str) -> list[str]:
        name = self._columns.get(role)
        return [text_of(row.get(name)) for row in self.rows] if name else []

    def _choose_times(self) -> None:
        """In our own exports, which say who labelled, `time` is when that was."""
        is_own = compact(self._columns.get("who", "")) == "who"
        if is_own and "labelled" not in self._columns and "time" in self._columns:
            self._columns["labelled"] = self._columns.pop("time")

    def _note_unused(self, names: Iterable[str], report: ReadReport) -> None:
        used = set(self._columns.values())
        if unused := [quote(name) for name in names if name and name not in used]:
            report.note(f"columns not used: {first_few(unused)}")
