"""Metrics by language and length, and of the top of the ranking."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from feedsieve.language import LANGUAGES, language
from feedsieve.text import plain
from train.evaluation.metrics import evaluate

FEWEST = 20  # messages; metrics of fewer are mostly noise
LENGTHS = {  # name, and the most characters
    "up to 100 characters": 100,
    "101 to 300 characters": 300,
    "301 to 600 characters": 600,
    "over 600 characters": math.inf,
}
PLACES = (20, 100)  # of the ranking: a page of the feed, and a thorough read
_OF_BOTH_LABELS = ("f1", "precision", "recall", "average_precision")  # meaningless for one label


def length(text: str) -> str:
    """Return the name in `LENGTHS` for a text, by characters of its `plain` form."""
    characters = len(plain(text))
    return next(name for name, most in LENGTHS.items() if characters <= most)


def by_slice(
    texts: Sequence[str], labels: ArrayLike, scores: ArrayLike, threshold: float
) -> list[dict[str, Any]]:
    """Return the metrics of each language and each range of lengths that occurs.

    `texts`, `labels` (0 or 1) and `scores` (0 to 1) are (n,). A row has `slice` (language or
    length), `name`, the counts `n` and `positives`, and `f1`, `precision`, `recall`,
    `average_precision` and `ece` from `evaluate`. All five are None for fewer than `FEWEST`
    messages, and the first four for messages with one label only.
    Raises `ValueError` as `evaluate` does, and if `texts` has another length.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if len(texts) != len(labels):
        raise ValueError(f"there are {len(texts)} texts and {len(labels)} labels")
    members = {
        "language": (LANGUAGES, np.array([language(text) for text in texts])),
        "length": (LENGTHS, np.array([length(text) for text in texts])),
    }
    return [
        {
            "slice": kind,
            "name": name,
            **_figures(labels[found == name], scores[found == name], threshold),
        }
        for kind, (names, found) in members.items()
        for name in names
        if (found == name).any()
    ]


def precision_at(labels: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Return the share of positives among the k highest scores, 0 to 1.

    Messages with tied scores share the last places equally, so the order of messages does not
    matter (McSherry and Najork, ECIR 2008). `labels` (0 or 1) and `scores` are (n,).
    Raises `ValueError` unless k is between 1 and n.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or not 1 <= k <= len(labels):
        raise ValueError(
            "k must be between 1 and the number of labels and scores, not"
            f" {k} of {labels.size} and {scores.size}"
        )
    last = np.sort(scores)[-k]
    above, tied = scores > last, scores == last
    places = k - int(above.sum())
    return float((labels[above].sum() + places * labels[tied].mean()) / k)


def precisions_at(
    labels: ArrayLike, scores: ArrayLike, places: Sequence[int] = PLACES
) -> dict[str, float]:
    """Return `precision_at_20` and so on, without places beyond the number of messages."""
    count = len(np.asarray(labels))
    return {f"precision_at_{k}": precision_at(labels, scores, k) for k in places if k <= count}


def _figures(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {**evaluate(labels, scores, threshold)}
    count, positives = len(labels), int(labels.sum())
    if count < FEWEST:
        metrics |= dict.fromkeys((*_OF_BOTH_LABELS, "ece"))
    elif positives in (0, count):
        metrics |= dict.fromkeys(_OF_BOTH_LABELS)
    names = ("n", "positives", *_OF_BOTH_LABELS, "ece")
    return {name: metrics[name] for name in names}
