"""What a person would notice about a message, as numbers that have names."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

_CURRENCY = r"(?:€|\$|£|₽|eur\b|euros?\b|евро|usd\b|долл|ευρώ|євро|у\.е)"
_NUMBER = r"\d{1,3}(?:[ .,']\d{3})+|\d+"  # 1 200, 1.200 and 1,200 are all twelve hundred
_PRICE = rf"{_CURRENCY}\s?(?P<before>{_NUMBER})|(?P<after>{_NUMBER})(?:[.,]\d\d)?\s?{_CURRENCY}"
_AREA = r"(?P<area>\d{2,5})(?:[.,]\d+)?\s?(?:кв\.?\s?м|[мm]\s?2\b|sq\.?\s?m|τ\.?μ)"
_MOST_DIGITS = 12  # of an amount that is believed


def _count(pattern: str) -> Callable[[str], float]:
    matches = re.compile(pattern).findall
    return lambda text: len(matches(text))


def _share(pattern: str) -> Callable[[str], float]:
    matches = re.compile(pattern).findall
    return lambda text: len(matches(text)) / max(1, len(text))


def _amount(pattern: str, choose: Callable[..., float]) -> Callable[[str], float]:
    """Return what chooses one of the amounts above 0 in a text, NaN where there is none."""
    matches = re.compile(pattern).finditer

    def amount(text: str) -> float:
        numbers = (match.group(match.lastgroup or 0) for match in matches(text))
        amounts = [float(re.sub(r"\D", "", number)[:_MOST_DIGITS]) for number in numbers]
        return choose((amount for amount in amounts if amount > 0), default=math.nan)

    return amount


TRAITS: dict[str, Callable[[str], float]] = {
    "length in characters": len,
    "length in words": lambda text: len(text.split()),
    "share of digits": _share(r"\d"),
    "share of Cyrillic letters": _share("[\u0400-\u04ff]"),
    "share of Latin letters": _share("[a-z]"),
    "share of Greek letters": _share("[\u0370-\u03ff\u1f00-\u1fff]"),
    "share of Ukrainian letters": _share("[іїєґ]"),
    "prices": _count(_PRICE),
    "lowest price": _amount(_PRICE, min),
    "highest price": _amount(_PRICE, max),
    "areas": _count(_AREA),
    "largest area": _amount(_AREA, max),
    "telephone numbers": _count(r"(?<![\w@])\+?\(?\d(?:[\s().-]{0,2}\d){7,13}(?!\w)"),
    "handles": _count(r"(?<![\w.])@\w{3,}"),
    "links": _count(r"(?:https?://|www\.|\bt\.me/)\S*|\b\w+\.(?:com|ru|net|org|cy)\b"),
    "hashtags": _count(r"(?<!\w)#\w+"),
    "question marks": _count(r"\?"),
    "exclamation marks": _count("!"),
    "list marks": _count(r"[•·▪●–—*]|(?<!\S)-(?!\S)"),
}


def traits(texts: Sequence[str]) -> np.ndarray:
    """Return the `TRAITS` of each text, (texts, traits), 64-bit floats.

    Amounts are NaN where a text has none. `texts` are plain (`feedsieve.text.plain`).
    """
    rows = [[measure(text) for measure in TRAITS.values()] for text in texts]
    return np.array(rows, np.float64).reshape(len(texts), len(TRAITS))
