"""Probabilities that labels are wrong, by out-of-fold scores."""

from collections.abc import Iterable

import numpy as np
from cleanlab.count import compute_confident_joint
from numpy.typing import NDArray
from scipy.special import expit, logit

from feedsieve.scoring.calibration import Calibration
from train.classifier.calibration import fit_platt

_EDGE = 1e-3  # of scores: keeps one certain model from outvoting the others


def consensus(labels: NDArray[np.int64], views: Iterable[NDArray[np.float64]]) -> NDArray:
    """Return the probability of positive on which several models agree, (messages,).

    `views` are out-of-fold scores, 0 to 1, and `labels` 0 or 1, all (messages,). The result is the
    mean of the calibrated logits, calibrated itself. Models that see different things, such as
    words and meaning, rarely agree by chance that a label is wrong.
    """
    logits = [_calibrated(labels, logit(np.clip(view, _EDGE, 1 - _EDGE))) for view in views]
    return expit(_calibrated(labels, np.mean(logits, axis=0)))


def probability_wrong(
    labels: NDArray[np.int64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability that a label is wrong, (messages,).

    `labels`, 0 or 1, and out-of-fold `scores`, 0 to 1, are (messages,). It is the mean of two
    estimates. The probability of the other label is too high, because it counts the model's own
    errors as wrong labels. The posterior if labels were wrong independently of the text is too low
    for wrong labels of a kind, which the model has learned in part. The rate of wrong labels is
    estimated by confident learning (Northcutt, Jiang and Chuang, JAIR 2021). One for each label
    ranked worse (docs/decisions/label-noise.md).
    """
    counts = compute_confident_joint(labels, np.column_stack([1 - scores, scores]), calibrate=False)
    rate = (counts[0, 1] + counts[1, 0]) / max(1, counts.sum())
    true = np.clip((scores - rate) / max(1 - 2 * rate, _EDGE), _EDGE, 1 - _EDGE)
    wrong = rate * np.where(labels == 1, 1 - true, true)
    right = (1 - rate) * np.where(labels == 1, true, 1 - true)
    other = np.where(labels == 1, 1 - scores, scores)
    mean: NDArray[np.float64] = (other + wrong / (wrong + right)) / 2
    return mean


def _calibrated(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    calibration = Calibration(*fit_platt(logits, labels))
    calibrated: NDArray[np.float64] = calibration.slope * logits + calibration.intercept
    return calibrated
