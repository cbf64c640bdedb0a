"""How good scores are, which threshold to decide by, and how to turn logits into probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

BINS = 10
_LEAST_SLOPE = 1e-6  # of standardised logits


@dataclass(frozen=True)
class Reliability:
    """Scores beside what came true, in bins of equal width over [0, 1]; each `(BINS,)`.

    `score` and `positive` are the mean score and the share of positives, NaN in an empty bin.
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
    """Return the metrics of `scores`, of which those at or above `threshold` are positive.

    `labels` (0 or 1) and `scores` (0 to 1) are both `(n,)`. The metrics: `f1`, `precision`,
    `recall` and `average_precision`, each 0.0 where it is undefined, `brier`, `ece` (of 10 bins),
    and the counts `n` and `positives`, of the labels.
    Raises `ValueError` when there is nothing to evaluate or a value is out of range.
    """
    labels, scores = _checked(labels, scores)
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
    """Return mean score and share of positives by score. Raises `ValueError` as `evaluate`."""
    labels, scores = _checked(labels, scores)
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count=count,
            score=np.bincount(bins, weights=scores, minlength=BINS) / count,
            positive=np.bincount(bins, weights=labels, minlength=BINS) / count,
        )


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the threshold, between 0 and 1, of the highest F1.

    It lies midway between the lowest score that it lets through and the highest that it does not
    (0 and 1 stand in where there is none). Of thresholds with the same F1 it is the one in the
    widest such gap, the higher of two equals, since new scores are least likely to fall there.
    `labels` (0 or 1) and `scores` (0 to 1) are both `(n,)`.
    Raises `ValueError` as `evaluate` does, and when no label is positive.
    """
    labels, scores = _checked(labels, scores)
    positives = int(labels.sum())
    if not positives:
        raise ValueError("no threshold is best: no label is positive")
    edges, group = np.unique(np.concatenate([[0.0, 1.0], scores]), return_inverse=True)
    group = group.ravel()[2:]
    through = np.bincount(group, minlength=len(edges))[::-1].cumsum()[::-1]
    hits = np.bincount(group, weights=labels, minlength=len(edges))[::-1].cumsum()[::-1]
    lower, upper = edges[:-1], edges[1:]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle > lower, middle, upper)  # no number lies between neighbours
    f1 = np.where(middle < 1, 2 * hits[1:] / (through[1:] + positives), -1.0)
    best = np.flatnonzero(f1 == f1.max())
    return float(middle[max(best, key=lambda gap: (upper[gap] - lower[gap], gap))])


def expected_threshold(scores: ArrayLike) -> float:
    """Return the threshold of the highest F1 to be expected if `scores` are calibrated.

    It is half that F1 (Lipton et al., 2014, https://arxiv.org/abs/1402.1892), so between 0 and 0.5.
    Labels have no part in it: where a sample's own F1 is highest moves by chance, and on parts that
    were held out such thresholds cost a point of F1 (docs/decisions/classifier.md). `scores` (0 to
    1) are `(n,)`. Raises `ValueError` for none, or if all are 0.
    """
    ranked = -np.sort(-np.asarray(scores, dtype=np.float64))
    expected = ranked.sum()
    if not expected:
        raise ValueError("no threshold is best: no score is above 0")
    f1 = 2 * ranked.cumsum() / (np.arange(1, len(ranked) + 1) + expected)
    return float(f1.max() / 2)


def fit_platt(logits: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Return `slope` (above 0) and `intercept`, so that the probability of positive is
    `sigmoid(slope * logit + intercept)`.

    Platt's scaling with his smoothed targets (Platt, 1999; Lin, Lin and Weng, 2007), which keep
    the slope finite when a logit separates the labels. `logits` and `labels` are both `(n,)`.
    Raises `ValueError` unless logits are finite and both labels are there.
    """
    values = np.asarray(logits, dtype=np.float64)
    labels, _ = _checked(labels, np.zeros_like(values))
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite")
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError("calibration needs both labels")
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(values.mean()), float(values.std())
    if spread <= 1e-9 * max(1.0, abs(centre)):  # all logits are one: only its probability counts
        return 1.0, float(logit(targets.mean())) - centre
    standard = (values - centre) / spread

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        fitted = parameters[0] * standard + parameters[1]
        residuals = expit(fitted) - targets
        value = np.mean(np.logaddexp(0, fitted) - targets * fitted)
        return float(value), np.array([np.mean(residuals * standard), np.mean(residuals)])

    fit = minimize(
        loss,
        x0=np.array([1.0, float(logit(targets.mean()))]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST_SLOPE, None), (None, None)],
        options={"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000},
    )
    slope = float(fit.x[0]) / spread
    return slope, float(fit.x[1]) - slope * centre


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
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
