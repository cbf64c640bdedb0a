"""Metrics of scores against labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Scores and outcomes in `BINS` bins of equal width over [0, 1], each array (BINS,).

    `score` is the mean score and `positive` the share of positives, NaN in an empty bin.
    """

    count: NDArray[np.int64]
    score: NDArray[np.float64]
    positive: NDArray[np.float64]

    def error(self) -> float:
        """Return the expected calibration error, 0 to 1 (Naeini et al., AAAI 2015)."""
        filled = self.count > 0
        gaps = np.abs(self.score[filled] - self.positive[filled])
        return float(np.average(gaps, weights=self.count[filled]))


def evaluate(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, float]:
    """Return the metrics of `scores`, where a score of `threshold` or more counts as positive.

    `labels` (0 or 1) and `scores` (0 to 1) are (n,). The metrics are `f1`, `precision`, `recall`
    and `average_precision`, each 0.0 where it is undefined, `brier`, `ece` (10 bins), and the
    counts `n` and `positives`.
    Raises `ValueError` for empty input or a value out of range.
    """
    labels, scores = check_labels_and_scores(labels, scores)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, scores >= threshold, average="binary", zero_division=0.0
    )
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "average_precision": float(average_precision_score(labels, scores)) if any(labels) else 0.0,
        "brier": float(np.mean((scores - labels) ** 2)),
        "ece": reliability(labels, scores).error(),
        "n": len(labels),
        "positives": int(labels.sum()),
    }


def reliability(labels: ArrayLike, scores: ArrayLike) -> Reliability:
    """Return mean scores and shares of positives by bin. Raises `ValueError` as `evaluate` does."""
    labels, scores = check_labels_and_scores(labels, scores)
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count=count,
            score=np.bincount(bins, weights=scores, minlength=BINS) / count,
            positive=np.bincount(bins, weights=labels, minlength=BINS) / count,
        )


def check_labels_and_scores(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return both as arrays. Raises `ValueError` for unequal lengths or values out of range."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or not len(labels):
        raise ValueError(
            "labels and scores must be lists of one length, at least 1, "
            f"not of shapes {labels.shape} and {scores.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be between 0 and 1")
    return labels.astype(np.int64), scores
