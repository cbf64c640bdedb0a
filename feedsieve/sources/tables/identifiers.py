"""Identifiers in tables, and what pandas and spreadsheets make of them."""

import re
from collections.abc import Iterable

MISSING = frozenset({"", "nan", "NaN", "None", "NULL", "null", "<NA>", "NaT", "\\N"})
"""Values that programs write where there is none; in a text they are words."""

_FLOAT = re.compile(r"-?\d+[.,]0+", re.ASCII)
_SHORTENED = re.compile(r"-?\d(?:[.,]\d+)?[Ee]\+\d+", re.ASCII)


def are_floats(values: Iterable[str]) -> bool:
    """Return whether all values are whole numbers with `.0`, as pandas writes them after a gap."""
    is_one = False
    for value in values:
        value = value.strip()
        if value not in MISSING:
            is_one = _FLOAT.fullmatch(value) is not None
            if not is_one:
                return False
    return is_one


def whole(value: str) -> str:
    """Return a number without its `.0`, other values as they are."""
    return re.split("[.,]", value)[0] if _FLOAT.fullmatch(value.strip()) else value


def is_shortened(value: str) -> bool:
    """Return whether a spreadsheet has shortened a long number: `1.23457E+17`."""
    return "+" in value and _SHORTENED.fullmatch(value.strip()) is not None


def check(value: str, column: str) -> str:
    """Return an identifier, empty for `MISSING`. Raises ValueError if its digits are lost."""
    if is_shortened(value):
        raise ValueError(
            f"{column} {value.strip()[:40]!r} has lost its digits in a spreadsheet; export the"
            " messages again, and do not save the file from the spreadsheet, or import this column"
            " there as text"
        )
    return "" if value in MISSING else value
