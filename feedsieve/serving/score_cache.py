"""Cache of scores in memory, so that reposts and notices of bots are not embedded again."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from feedsieve.scoring.scorer import ScoredText
from feedsieve.text import fingerprint

# Characters that the event loop normalises itself: 0.1 ms, and 6 ms for the worst.
MAX_ON_LOOP = 2_000


class ScoreCache:
    """Least recently used cache of scores by fingerprint; safe to use from several threads.

    A fingerprint covers everything that models read of a text.
    """

    def __init__(self, entries: int) -> None:
        """Keep at most `entries` scores, about 300 bytes each."""
        self._entries = entries
        self._scores: OrderedDict[str, ScoredText] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, fingerprints: Iterable[str]) -> dict[str, ScoredText]:
        """Return the cached scores, by fingerprint."""
        cached = {}
        with self._lock:
            for key in fingerprints:
                if key in self._scores:
                    self._scores.move_to_end(key)
                    cached[key] = self._scores[key]
        return cached

    def put(self, scores: Mapping[str, ScoredText]) -> None:
        """Cache scores by fingerprint."""
        with self._lock:
            self._scores |= scores
            while len(self._scores) > self._entries:
                self._scores.popitem(last=False)


async def fingerprints(texts: Sequence[str]) -> list[str]:
    """Return the fingerprints of `texts`, of many characters in a thread."""

    def compute() -> list[str]:
        return [fingerprint(text) for text in texts]

    if sum(map(len, texts)) <= MAX_ON_LOOP:
        return compute()
    return await asyncio.to_thread(compute)
