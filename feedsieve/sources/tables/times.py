"""Times in a column of a table, as programs, databases and spreadsheets write them."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from feedsieve.message import in_utc
from feedsieve.sources.report import ReadReport

_NUMBER = re.compile(r"-?\d+(?:[.,]\d*)?", re.ASCII)
_UNITS = {  # by the number of digits
    **dict.fromkeys((9, 10, 11), 1),
    **dict.fromkeys((12, 13), 10**3),
    **dict.fromkeys((15, 16), 10**6),
    **dict.fromkeys((18, 19), 10**9),
}
_UNIT_NAMES = {10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
_EXCEL_ZERO = datetime(1899, 12, 30, tzinfo=UTC)  # makes day 61 March 1st of 1900, as in Excel
_EXCEL_DAYS = range(20_000, 80_000)  # 1954 to 2119
_COMPACT = re.compile("(?:19|20)[0-9]{12}")  # 20241231140500
_PARTS = re.compile(
    r"(?P<one>\d{1,2})(?P<sep>[./-])(?P<two>\d{1,2})(?P=sep)(?P<year>\d{4}|\d{2})"
    r"(?:г\.?)?(?:,?[ T]+(?P<clock>.+))?",
    re.ASCII,
)
_YEAR_FIRST = re.compile(r"(\d{4})[./](\d{1,2})[./](\d{1,2})(?:,?[ T]+(?P<clock>.+))?", re.ASCII)
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2})(?:[.,]\d+)?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s*(?:UTC|GMT)?\s*(?P<zone>Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_NONE = frozenset({"", "nan", "nat", "none", "null", "<na>", "\\n", "-", "0", "0.0", "false"})
EXPECTED = (
    "expected a time in ISO 8601, seconds or milliseconds since 1970, or a date such as"
    " 31.12.2024 14:05"
)


class TimeColumn:
    """A column of times. Whether days come before months is decided from all of the column."""

    def __init__(self, report: ReadReport, name: str) -> None:
        self._report = report
        self._name = name
        self.is_day_first: bool | None = None  # unknown
        self._noted: set[str] = set()

    def parse(self, value: str) -> datetime | None:
        """Return a time in UTC, the default zone; None for an empty value.

        Raises ValueError for anything else, and UndecidedOrder.
        """
        if value[4:5] == "-":
            try:
                return in_utc(datetime.fromisoformat(value))
            except ValueError:
                pass
        value = value.strip()
        if value.lower() in _NONE:
            return None
        try:
            return self._parse(value)
        except (UndecidedOrder, _Unreadable):
            raise
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"{EXPECTED}: {value[:100]!r}") from None

    def _parse(self, value: str) -> datetime:
        if _NUMBER.fullmatch(value):
            return self._from_number(value)
        if parts := _PARTS.fullmatch(value):
            return self._from_parts(parts)
        if parts := _YEAR_FIRST.fullmatch(value):
            return _joined(int(parts[1]), int(parts[2]), int(parts[3]), parts["clock"])
        if value[:3].isalpha():  # of mail, feeds and HTTP
            return in_utc(parsedate_to_datetime(value))
        day, _, clock = value.partition(" ")
        if clock and _CLOCK.fullmatch(clock):
            date = datetime.fromisoformat(day)
            return _joined(date.year, date.month, date.day, clock)
        return in_utc(datetime.fromisoformat(value))

    def _from_number(self, value: str) -> datetime:
        number = value.replace(",", ".")
        digits = len(number.lstrip("-").partition(".")[0])
        if _COMPACT.fullmatch(number):
            return datetime.strptime(number, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        if digits == 8:
            return in_utc(datetime.fromisoformat(number))
        if digits <= 5 and int(float(number)) in _EXCEL_DAYS:
            self._note("days since 1900, as in Excel")
            return _EXCEL_ZERO + timedelta(seconds=round(float(number) * 86400))
        if digits not in _UNITS:
            raise _Unreadable(f"the time {value[:100]!r} is out of range")
        unit = _UNITS[digits]
        if unit > 1:
            self._note(f"{_UNIT_NAMES[unit]} since 1970")
            return datetime.fromtimestamp(int(float(number)) / unit, UTC)
        return datetime.fromtimestamp(float(number), UTC)

    def _from_parts(self, parts: re.Match[str]) -> datetime:
        one, two, year = int(parts["one"]), int(parts["two"]), int(parts["year"])
        if self.is_day_first is None:
            raise UndecidedOrder
        day, month = (one, two) if self.is_day_first else (two, one)
        order = "day before month" if self.is_day_first else "month before day"
        if month > 12 >= day:
            raise _Unreadable(f"the time {parts[0]!r} is not {order}, as others in its column")
        self._note(order)
        return _joined(year if year > 99 else 2000 + year, month, day, parts["clock"])

    def decide_order(self, values: Iterable[str]) -> None:
        """Set `is_day_first` by the first value that tells. Raises ValueError if none does."""
        example = ""
        for value in values:
            parts = _PARTS.fullmatch(value.strip())
            if parts is None:
                continue
            if int(parts["one"]) > 12 or int(parts["two"]) > 12:
                self.is_day_first = int(parts["one"]) > 12
                return
            if parts["sep"] != ".":
                example = example or value.strip()
        if example:
            raise ValueError(
                f"days and months of column {self._name} cannot be told apart, as in"
                f" {example[:40]!r}; write times as 2024-12-31 14:05, or rename the column to"
                " leave them out"
            )
        self.is_day_first = True  # with full stops, everywhere

    def _note(self, note: str) -> None:
        if note not in self._noted:
            self._noted.add(note)
            self._report.note(f"{self._name}: {note}")


class UndecidedOrder(ValueError):
    """A date whose order of day and month is unknown: call `decide_order` first."""


class _Unreadable(ValueError):
    """A value that is no time, for a reason of its own."""


def _joined(year: int, month: int, day: int, clock: str | None) -> datetime:
    date = datetime(year, month, day, tzinfo=UTC)
    if not clock:
        return date
    parts = _CLOCK.fullmatch(clock.strip())
    if parts is None:
        raise ValueError("no time of day")
    hour = int(parts["hour"])
    if half := parts["half"]:
        if not 1 <= hour <= 12:
            raise ValueError("no hour of half a day")
        hour = hour % 12 + (12 if half in "Pp" else 0)
    time = date.replace(hour=hour, minute=int(parts["minute"]), second=int(parts["second"] or 0))
    if zone := parts["zone"]:
        return in_utc(datetime.fromisoformat(f"{time:%Y-%m-%dT%H:%M:%S}{zone}"))
    return time
