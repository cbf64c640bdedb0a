"""What a person would notice about a message, as numbers that have names."""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

# `re` goes from one character of a set to the next several times as fast as it tries what may begin
# with anything. So what begins with few characters names them first: handles, hashtags and list
# marks, which look behind at what stands before. A price looks ahead for what a currency or number
# may begin with: elsewhere it is given up at once.
_CURRENCY = r"(?:€|\$|£|₽|eur\b|euros?\b|евро|usd\b|долл|ευρώ|євро|у\.е)"
_NUMBER = r"\d{1,3}(?:[ .,']\d{3})+|\d+"  # 1 200, 1.200 and 1,200 are all twelve hundred
_PRICE = (
    r"(?=[€$£₽eеuдуєε\d])"
    rf"(?:{_CURRENCY}\s?(?P<before>{_NUMBER})|(?P<after>{_NUMBER})(?:[.,]\d\d)?\s?{_CURRENCY})"
)
_AREA = r"(?P<area>\d{2,5})(?:[.,]\d+)?\s?(?:кв\.?\s?м|[мm]\s?2\b|sq\.?\s?m|τ\.?μ)"
_MOST_DIGITS = 12  # of an amount that is believed


Trait = Callable[[str], float]


def _count(pattern: str, only_if: str = "") -> Trait:
    """Return what counts the matches in a text, 0 without looking if `only_if` is nowhere in it."""
    matches, is_worth_it = re.compile(pattern).findall, re.compile(only_if).search
    return lambda text: len(matches(text)) if is_worth_it(text) else 0


def _share(characters: str) -> Trait:
    runs = re.compile(f"{characters}+").findall  # far fewer than characters
    return lambda text: sum(map(len, runs(text))) / max(1, len(text))


def _amounts(pattern: str) -> Callable[[str], tuple[float, ...]]:
    """Return what finds the amounts in a text, once for all that is asked of them in a row."""
    matches = re.compile(pattern).finditer

    @lru_cache(1)
    def amounts(text: str) -> tuple[float, ...]:
        numbers = (match.group(match.lastgroup or 0) for match in matches(text))
        return tuple(float(re.sub(r"\D", "", number)[:_MOST_DIGITS]) for number in numbers)

    return amounts


def _chosen(amounts: Callable[[str], tuple[float, ...]], choose: Callable[..., float]) -> Trait:
    """Return what chooses one of the amounts above 0 in a text, NaN where there is none."""
    return lambda text: choose((one for one in amounts(text) if one > 0), default=math.nan)


_prices, _areas = _amounts(_PRICE), _amounts(_AREA)

TRAITS: dict[str, Trait] = {
    "length in characters": len,
    "length in words": lambda text: len(text.split()),
    "share of digits": _share(r"\d"),
    "share of Cyrillic letters": _share("[\u0400-\u04ff]"),
    "share of Latin letters": _share("[a-z]"),
    "share of Greek letters": _share("[\u0370-\u03ff\u1f00-\u1fff]"),
    "share of Ukrainian letters": _share("[іїєґ]"),
    "prices": lambda text: len(_prices(text)),
    "lowest price": _chosen(_prices, min),
    "highest price": _chosen(_prices, max),
    "areas": lambda text: len(_areas(text)),
    "largest area": _chosen(_areas, max),
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


def traits(texts: Sequence[str]) -> np.ndarray:
    """Return the `TRAITS` of each text, (texts, traits), 64-bit floats.

    Amounts are NaN where a text has none. `texts` are plain (`feedsieve.text.plain`).
    """
    rows = [[measure(text) for measure in TRAITS.values()] for text in texts]
    return np.array(rows, np.float64).reshape(len(texts), len(TRAITS))
