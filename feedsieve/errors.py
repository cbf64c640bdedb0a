"""Base class of the errors that users can cause, and what their messages are made of.

The messages are one line and say what to do. Commands print it and exit with code 1.
"""

from collections.abc import Sequence

_SHOWN = 5
_SHOWN_CHARACTERS = 60


class FeedsieveError(Exception):
    """Base class. Subclasses are defined next to the code that raises them."""


def quote(value: object) -> str:
    """Return `value` shortened and quoted on one line."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def first_few(values: Sequence[str]) -> str:
    """Return at most five of `values`, and the number of the others."""
    more = [f"and {len(values) - _SHOWN:,} more"] if len(values) > _SHOWN else []
    return "; ".join([*values[:_SHOWN], *more])
