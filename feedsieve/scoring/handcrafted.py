"""Handcrafted features: named numbers that a person would notice about a message."""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

# Patterns start with a small set of characters, because `re` then skips to the next candidate
# several times as fast: handles, hashtags and list marks check the character before by looking
# behind, and a price looks ahead for the first character of a currency or a number.
_CURRENCY = r"(?:€|\$|£|₽|eur\b|euros?\b|евро|usd\b|долл|ευρώ|євро|у\.е)"
_NUMBER = r"\d{1,3}(?:[ .,']\d{3})+|\d+"  # 1 200, 1.200 and 1,200 are all twelve hundred
_PRICE = (
    r"(?=[€$£₽eеuдуєε\d])"
    rf"(?:{_CURRENCY}\s?(?P<before>{_NUMBER})|(?P<after>{_NUMBER})(?:[.,]\d\d)?\s?{_CURRENCY})"
)
_AREA = r"(?P<area>\d{2,5})(?:[.,]\d+)?\s?(?:кв\.?\s?м|[мm]\s?2\b|sq\.?\s?m|τ\.?μ)"
_MAX_DIGITS = 12  # of an amount; the rest is cut off
# Numbers that no price has, and that `_PRICE` would read from each of their digits to their end.
# Their first and last digits stay, so that the same amounts are found.
_MANY_DIGITS = re.compile(r"(\d{21})\d+(\d{3})")
_MANY_THOUSANDS = re.compile(r"(\d{1,3}(?:[ .,']\d{3}){8})(?:[ .,']\d{3})+(?=[ .,']\d{3})")

Feature = Callable[[str], float]


def _count(pattern: str, only_if: str = "") -> Feature:
    """Return a counter of the matches in a text; without a match of `only_if` there are none."""
    matches, is_candidate = re.compile(pattern).findall, re.compile(only_if).search
    return lambda text: len(matches(text)) if is_candidate(text) else 0


def _share(characters: str) -> Feature:
    runs = re.compile(f"{characters}+").findall  # far fewer than characters
    return lambda text: sum(map(len, runs(text))) / max(1, len(text))


def _amounts(
    pattern: str, prepare: Callable[[str], str] = str
) -> Callable[[str], tuple[float, ...]]:
    """Return a finder of the amounts in a prepared text, cached for the features that share it."""
    matches = re.compile(pattern).finditer

    @lru_cache(1)
    def amounts(text: str) -> tuple[float, ...]:
        numbers = (match.group(match.lastgroup or 0) for match in matches(prepare(text)))
        return tuple(float(re.sub(r"\D", "", number)[:_MAX_DIGITS]) for number in numbers)

    return amounts


def _without_long(text: str) -> str:
    """Return `text` with shorter numbers in place of endless ones, for patterns of numbers."""
    return _MANY_THOUSANDS.sub(r"\1", _MANY_DIGITS.sub(r"\1\2", text))


def _extreme(amounts: Callable[[str], tuple[float, ...]], choose: Callable[..., float]) -> Feature:
    """Return `choose` (min or max) of the amounts above 0 in a text, NaN if there is none."""
    return lambda text: choose((amount for amount in amounts(text) if amount > 0), default=math.nan)


_prices, _areas = _amounts(_PRICE, _without_long), _amounts(_AREA)

HANDCRAFTED: dict[str, Feature] = {
    "length in characters": len,
    "length in words": lambda text: len(text.split()),
    "share of digits": _share(r"\d"),
    "share of Cyrillic letters": _share("[\u0400-\u04ff]"),
    "share of Latin letters": _share("[a-z]"),
    "share of Greek letters": _share("[\u0370-\u03ff\u1f00-\u1fff]"),
    "share of Ukrainian letters": _share("[іїєґ]"),
    "prices": lambda text: len(_prices(text)),
    "lowest price": _extreme(_prices, min),
    "highest price": _extreme(_prices, max),
    "areas": lambda text: len(_areas(text)),
    "largest area": _extreme(_areas, max),
    "telephone numbers": _count(r"(?<![\w@])\+?\(?\d(?:[\s().-]{0,2}\d){7,13}(?!\w)"),
    "handles": _count(r"@(?<![\w.]@)\w{3,}"),
    "links": _count(
        r"(?:https?://|www\.|\bt\.me/)\S*|\b\w+\.(?:com|ru|net|org|cy)\b",
        only_if=r"://|www\.|\.(?:me/|com|ru|net|org|cy)",
    ),
    "hashtags": _count(r"#(?<!\w#)\w+"),
    "question marks": _count(r"\?"),
    "exclamation marks": _count("!"),
    "list marks": _count(r"[•·▪●–—*-](?:(?<!-)|(?<!\S-)(?!\S))"),
}


def handcrafted_features(texts: Sequence[str]) -> np.ndarray:
    """Return the `HANDCRAFTED` features of each text, (texts, features), 64-bit floats.

    Amounts are NaN where a text has none. `texts` are plain (`feedsieve.text.plain`).
    """
    rows = [[measure(text) for measure in HANDCRAFTED.values()] for text in texts]
    return np.array(rows, np.float64).reshape(len(texts), len(HANDCRAFTED))
