"""Scores given before, so that reposts and notices of bots are not embedded again."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from feedsieve.scorer import Verdict


class Recall:
    """Scores by fingerprint; what was asked for longest ago is forgotten first.

    Texts of one fingerprint have one score, since the fingerprint is taken of all that models read
    of a text. Safe to use from several threads.
    """

    def __init__(self, entries: int) -> None:
        """`entries` is how many scores are kept, about 300 bytes each; 0 keeps none."""
        self._entries = entries
        self._scores: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, fingerprints: Iterable[str]) -> dict[str, Verdict]:
        """Return the scores that are known, by fingerprint."""
        found = {}
        with self._lock:
            for mark in fingerprints:
                if mark in self._scores:
                    self._scores.move_to_end(mark)
                    found[mark] = self._scores[mark]
        return found

    def keep(self, scores: Mapping[str, Verdict]) -> None:
        """Remember scores by fingerprint."""
        with self._lock:
            self._scores |= scores
            while len(self._scores) > self._entries:
                self._scores.popitem(last=False)
