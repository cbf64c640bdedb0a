"""Calibrate logits to probabilities, and choose the threshold to decide by."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from feedsieve.scoring.calibration import Calibration
from train.evaluation.metrics import check_labels_and_scores

_LEAST_SLOPE = 1e-6  # of standardised logits


def fit_platt(logits: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Return slope (above 0) and intercept of `probability = sigmoid(slope * logit + intercept)`.

    Platt scaling with smoothed targets (Platt, 1999; Lin, Lin and Weng, 2007), which keep the slope
    finite when a logit separates the labels. `logits` and `labels`, 0 or 1, are (n,).
    Raises `ValueError` unless logits are finite and both labels occur.
    """
    values = np.asarray(logits, dtype=np.float64)
    labels, _ = check_labels_and_scores(labels, np.zeros_like(values))
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite")
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError("calibration needs both labels")
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(values.mean()), float(values.std())
    if spread <= 1e-9 * max(1.0, abs(centre)):  # equal logits carry no information
        return 1.0, float(logit(targets.mean())) - centre
    # Each row appears once as a positive and once as a negative: their weights are the soft target.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(
        np.tile((values - centre) / spread, 2).reshape(-1, 1),
        np.repeat([1, 0], len(values)),
        np.concatenate([targets, 1 - targets]),
    )
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:  # calibration must not reverse the ranking
        slope, intercept = _LEAST_SLOPE, float(logit(targets.mean()))
    slope /= spread
    return slope, intercept - slope * centre


def calibrate(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return `logits` as probabilities, (n,), calibrated on their `labels`; see `fit_platt`."""
    return Calibration(*fit_platt(logits, labels)).apply(logits)


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the threshold of the highest F1, above 0 and below 1.

    A threshold is the midpoint between two neighbouring scores (0 and 1 included). Of midpoints
    with the same F1 it is the one in the widest gap, the higher of two equals: new scores are least
    likely to fall there. `labels` (0 or 1) and `scores` (0 to 1) are (n,).
    Raises `ValueError` as `evaluate` does, and if no label is positive.
    """
    labels, scores = check_labels_and_scores(labels, scores)
    positives = int(labels.sum())
    if not positives:
        raise ValueError("no threshold is best: no label is positive")
    edges, group = np.unique(np.concatenate([[0.0, 1.0], scores]), return_inverse=True)
    group = group.ravel()[2:]
    above = np.bincount(group, minlength=len(edges))[::-1].cumsum()[::-1]
    hits = np.bincount(group, weights=labels, minlength=len(edges))[::-1].cumsum()[::-1]
    lower, upper = edges[:-1], edges[1:]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle > lower, middle, upper)  # neighbouring floats have no midpoint
    f1 = np.where(middle < 1, 2 * hits[1:] / (above[1:] + positives), -1.0)
    best = np.flatnonzero(f1 == f1.max())
    return float(middle[max(best, key=lambda gap: (upper[gap] - lower[gap], gap))])


def expected_threshold(scores: ArrayLike) -> float:
    """Return the threshold of the highest expected F1 if `scores` are calibrated.

    It is half that F1 (Lipton et al., 2014, https://arxiv.org/abs/1402.1892), so at most 0.5.
    Labels are not used: the threshold of a sample's highest F1 varies by chance, and cost a point
    of F1 on held-out parts (docs/decisions/classifier.md). `scores` (0 to 1) are (n,).
    Raises `ValueError` if there are none, or all are 0.
    """
    ranked = -np.sort(-np.asarray(scores, dtype=np.float64))
    expected = ranked.sum()
    if not expected:
        raise ValueError("no threshold is best: no score is above 0")
    f1 = 2 * ranked.cumsum() / (np.arange(1, len(ranked) + 1) + expected)
    return float(f1.max() / 2)
