"""Kinds of wrong labels: words that mark many of them, so that one look settles a whole kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from feedsieve.text import plain

FEWEST = 3.0  # wrong labels to be expected of a kind
LEAST_GAIN = 2.0  # of log-likelihood; less is chance
MOST_KINDS = 20
_NAMES = ("negative", "positive")


@dataclass(frozen=True)
class Kind:
    """Messages with one label and one word (or two) of which many are expected to be wrong."""

    words: str
    label: int
    rows: np.ndarray  # row numbers, (messages,)
    expected: float  # wrong labels among them
    gain: float  # log-likelihood that the word explains

    def __str__(self) -> str:
        return (
            f"“{self.words}”: {self.expected:.0f} of {len(self.rows)} labelled"
            f" {_NAMES[self.label]} are expected to be wrong"
        )


def kinds(texts: Sequence[str], labels: np.ndarray, wrong: np.ndarray) -> list[Kind]:
    """Return the kinds of wrong labels, the one that explains most first.

    `labels`, 0 or 1, and `wrong`, the probability that a label is wrong, are (texts,). Words are
    chosen one after the other, by the likelihood ratio of their share of wrong labels against that
    of all messages with the label; each message belongs to one kind at most.
    """
    vectorizer = CountVectorizer(
        ngram_range=(1, 2), binary=True, min_df=min(3, len(texts)), token_pattern=r"[^\W\d_]{2,}"
    )
    try:
        words = vectorizer.fit_transform([plain(text) for text in texts]).tocsc()
    except ValueError:  # no word occurs so often
        return []
    names = vectorizer.get_feature_names_out()
    found: list[Kind] = []
    for label in (0, 1):
        left = np.flatnonzero(labels == label)
        for _kind in range(MOST_KINDS):
            if not len(left):
                break
            present = words[left]
            counts = np.asarray(present.sum(axis=0)).ravel()
            expected = present.T @ wrong[left]
            gains = _likelihood_ratio(expected, counts, wrong[left].mean())
            gains[expected < FEWEST] = 0
            best = int(gains.argmax())
            if gains[best] < LEAST_GAIN:
                break
            has_word = np.zeros(len(left), bool)
            has_word[present[:, [best]].nonzero()[0]] = True
            rows, gain = left[has_word], float(gains[best])
            found.append(Kind(str(names[best]), label, rows, float(expected[best]), gain))
            left = left[~has_word]
    return sorted(found, key=lambda kind: -kind.gain)[:MOST_KINDS]


def _likelihood_ratio(wrong: np.ndarray, counts: np.ndarray, base: float) -> np.ndarray:
    """Return how much better a word's own share of wrong labels explains them than `base` does.

    `wrong` and `counts` are (words,); 0 where the share is not above `base`.
    """
    counts = np.maximum(counts, 1)
    share = np.clip(wrong / counts, 1e-9, 1 - 1e-9)
    base = min(max(base, 1e-9), 1 - 1e-9)
    gain = wrong * np.log(share / base) + (counts - wrong) * np.log((1 - share) / (1 - base))
    return np.where(share > base, gain, 0.0)
