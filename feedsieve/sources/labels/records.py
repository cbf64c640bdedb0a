"""Rows of labelled messages: names of columns, and values read as messages, people and times."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feedsieve.errors import first_few, quote
from feedsieve.message import Message, clean
from feedsieve.sources.columns import PLACE, ROLES, compact, find, listed
from feedsieve.sources.keys import bot_api_key, given_key, name_key, title_of
from feedsieve.sources.labels.label_studio import text_of
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.identifiers import MISSING, are_floats, check, whole
from feedsieve.sources.tables.times import TimeColumn, UndecidedOrder

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
        self._columns: dict[str, list[str]] = {}  # tasks may have other keys than those before
        for role, known in _ROLES.items():
            if is_of_messages and role in _OF_LABELS:
                continue
            if find(names, known) is not None:
                found = [name for name in names if compact(name) in known]
                self._columns[role] = sorted(found, key=lambda name: known.index(compact(name)))
        self._choose_times()
        missing = [role for role in ("text", "label") if role not in self._columns]
        if rows and (missing and not (is_of_messages and missing == ["label"])):
            raise ValueError(
                f"expected msg_id, msg and label; there is no {missing[0]} in {listed(names)}"
            )
        self._has_float_ids = are_floats(self._values("id"))
        if self._has_float_ids:
            report.note(f"{self._columns['id'][0]}: 1.0 is read as 1")
        self._times: dict[str, _Times] = {
            role: _Times(TimeColumn(report, self._columns[role][0]), self._values(role))
            for role in ("time", "labelled")
            if role in self._columns
        }
        self._note_unused(names, report)

    def text(self, row: Row, role: str) -> str:
        """Return the value of a role as text, empty if there is none."""
        value = text_of(self._value(row, role)).strip()
        return "" if value in MISSING else value

    def label(self, row: Row) -> Any:
        """Return the label as it is in the file."""
        return self._value(row, "label")

    def labelled_at(self, row: Row) -> datetime | None:
        """Return when the row was labelled. Raises ValueError."""
        with _at(row):
            return self._time(row, "labelled")

    def message(self, row: Row) -> Message:
        """Return the message of a row. Raises ValueError."""
        with _at(row):
            return self._message(row)

    def _message(self, row: Row) -> Message:
        own = check(text_of(self._value(row, "id")).strip(), self._name(row, "id") or "msg_id")
        title = self.text(row, "channel") or None
        source = self._source(row, title)
        title = title or title_of(source)
        return clean(
            Message(
                id=whole(own) if self._has_float_ids else own,
                text=text_of(self._value(row, "text")),
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
        return times.parse(text_of(self._value(row, role))) if times else None

    def _values(self, role: str) -> list[str]:
        return [text_of(self._value(row, role)) for row in self.rows]

    def _value(self, row: Row, role: str) -> Any:
        name = self._name(row, role)
        return None if name is None else row[name]

    def _name(self, row: Row, role: str) -> str | None:
        return next((name for name in self._columns.get(role, ()) if name in row), None)

    def _choose_times(self) -> None:
        """In our own exports, which say who labelled, `time` is when that was."""
        is_own = compact(self._columns.get("who", [""])[0]) == "who"
        if is_own and "labelled" not in self._columns and "time" in self._columns:
            self._columns["labelled"] = self._columns.pop("time")

    def _note_unused(self, names: Iterable[str], report: ReadReport) -> None:
        shapes = {tuple(row): row for row in self.rows}.values()
        used = {self._name(row, role) for row in shapes for role in self._columns}
        if unused := [quote(name) for name in names if name and name not in used]:
            report.note(f"columns not used: {first_few(unused)}")
