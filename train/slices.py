"""How good scores are on messages of one language or one length, which an average hides."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from feedsieve.language import LANGUAGES, language
from feedsieve.text import plain
from train.evaluate import evaluate

FEWEST = 20  # messages; figures of fewer say more about chance than about the model
LENGTHS = {  # name, and the most characters
    "up to 100 characters": 100,
    "101 to 300 characters": 300,
    "301 to 600 characters": 600,
    "over 600 characters": math.inf,
}
PLACES = (20, 100)  # of the ranking: what a reader sees at once, and on a patient day
_OF_BOTH_LABELS = ("f1", "precision", "recall", "average_precision")  # of one, they tell nothing
_FIGURES = (*_OF_BOTH_LABELS, "ece")


def length(text: str) -> str:
    """Return which of `LENGTHS` a text has, in characters of what models read (`plain`)."""
    characters = len(plain(text))
    return next(name for name, most in LENGTHS.items() if characters <= most)


def by_slice(
    texts: Sequence[str], labels: ArrayLike, scores: ArrayLike, threshold: float
) -> list[dict[str, Any]]:
    """Return the metrics of each language and each range of lengths that occurs.

    `texts`, `labels` (0 or 1) and `scores` (0 to 1) are all (n,). A row has `slice` (language or
    length), `name`, the counts `n` and `positives`, and `f1`, `precision`, `recall`,
    `average_precision` and `ece` as `evaluate` gives them. These are None where there are fewer
    than `FEWEST` messages, and all but `ece` also where there is one label only.
    Raises `ValueError` as `evaluate` does, and for texts of another number.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if len(texts) != len(labels):
        raise ValueError(f"there are {len(texts)} texts and {len(labels)} labels")
    slices: dict[str, tuple[Callable[[str], str], Iterable[str]]] = {
        "language": (language, LANGUAGES),
        "length": (length, LENGTHS),
    }
    rows = []
    for kind, (name_of, names) in slices.items():
        names_of_texts = np.array([name_of(text) for text in texts])
        for name in names:
            members = names_of_texts == name
            if members.any():
                metrics = evaluate(labels[members], scores[members], threshold)
                rows.append({"slice": kind, "name": name, **_meaningful(metrics)})
    return rows


def precision_at(labels: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Return the share of positives among the k highest scores, 0 to 1.

    Messages of one score that only some places are left for share them: each takes as much of
    them as any other, so that the order of messages does not matter (McSherry and Najork, ECIR
    2008). `labels` (0 or 1) and `scores` are both (n,).
    Raises `ValueError` unless k is between 1 and n.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or not 1 <= k <= len(labels):
        raise ValueError(
            f"k must be between 1 and the number of labels and scores, not {k} "
            f"of {labels.size} and {scores.size}"
        )
    last = np.sort(scores)[-k]
    above, tied = scores > last, scores == last
    places = k - int(above.sum())
    return float((labels[above].sum() + places * labels[tied].mean()) / k)


def precisions_at(
    labels: ArrayLike, scores: ArrayLike, places: Sequence[int] = PLACES
) -> dict[str, float]:
    """Return `precision_at_20` and so on, but for places that there are too few messages for."""
    count = len(np.asarray(labels))
    return {f"precision_at_{k}": precision_at(labels, scores, k) for k in places if k <= count}


def _meaningful(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return counts and figures, None for a figure that these messages cannot tell."""
    few = metrics["n"] < FEWEST
    one_label = metrics["positives"] in (0, metrics["n"])
    untold = _FIGURES if few else _OF_BOTH_LABELS if one_label else ()
    figures = {name: None if name in untold else metrics[name] for name in _FIGURES}
    return {"n": metrics["n"], "positives": metrics["positives"], **figures}
