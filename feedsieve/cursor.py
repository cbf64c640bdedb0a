"""A page of the feed, and the cursor that says where the next one starts."""

import base64
import json
import math
import re
from dataclasses import astuple, dataclass

from feedsieve.text import storable

_MAXIMUM_LENGTH = 2048  # of an encoded cursor, in characters
_LARGEST_RANK = 2**53


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last item of a page: the model that ranked it, its score, fingerprint and rank."""

    model: str
    score: float
    fingerprint: str
    rank: int

    def encode(self) -> str:
        """Return the cursor as text for a URL: compact JSON in URL-safe base64, unpadded."""
        fields = json.dumps(astuple(self), separators=(",", ":"))
        return base64.urlsafe_b64encode(fields.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Return the cursor that encodes as `text`.

        Raises ValueError for anything that `encode` does not give.
        """
        try:
            return cls._decode(text)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise ValueError("not a cursor: pass the `next` of an earlier page unchanged") from None

    @classmethod
    def _decode(cls, text: str) -> "Cursor":
        if len(text) > _MAXIMUM_LENGTH:
            raise ValueError("too long")
        fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        model, score, fingerprint, rank = fields
        cursor = cls(model, score, fingerprint, rank)
        if not (
            isinstance(fields, list)
            and isinstance(model, str)
            and model == storable(model) != ""
            and isinstance(score, float)
            and math.isfinite(score)
            and isinstance(fingerprint, str)
            and re.fullmatch("[0-9a-f]{32}", fingerprint)
            and type(rank) is int
            and 1 <= rank <= _LARGEST_RANK
            and cursor.encode() == text
        ):
            raise ValueError("not what encode gives")
        return cursor


@dataclass(frozen=True, slots=True)
class FeedItem:
    """A message in the feed.

    `score` is from 0 to 1, `is_positive` whether it reaches its model's threshold, `rank` starts at
    1 and runs on across pages, `copies` is how many messages have this text, this one included.
    """

    id: str
    text: str
    score: float
    is_positive: bool
    rank: int
    copies: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Items by falling score, and the cursor of the page that follows, None after the last."""

    model: str
    items: list[FeedItem]
    next: Cursor | None
