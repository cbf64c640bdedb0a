"""The bound of the cascade: when the word model may answer without the encoder."""

from dataclasses import replace

import numpy as np

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.cascade import Cascade
from train.classifier.boosting import Fitted
from train.classifier.calibration import fit_platt
from train.evaluation.metrics import evaluate

MOST_LOST = 0.002  # of the true positives without a cascade; takes 500 of them to lose one


def put_before(
    fitted: Fitted, lexical: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None
) -> Fitted:
    """Return `fitted` with a cascade, if one is safe, and held-out scores and metrics to match.

    `lexical` are out-of-fold logits of the word model and `labels`, 0 or 1, both (messages,), for
    the messages that `fitted` has held-out scores of. Only those `kept`, (messages,), bool, choose.
    """
    rows = np.ones(len(labels), bool) if kept is None else kept
    cascade = choose(lexical[rows], fitted.held_out[rows], labels[rows], fitted.threshold)
    if not cascade:
        return fitted
    is_sure = cascade.is_sure(lexical)
    scores = np.where(is_sure, cascade.calibration.apply(lexical), fitted.held_out)
    validation = {
        **evaluate(labels, scores, fitted.threshold),
        "by_words": float(is_sure.mean()),
        "f1_without_cascade": fitted.validation["f1"],
    }
    return replace(fitted, cascade=cascade, held_out=scores, validation=validation)


def choose(
    lexical: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float
) -> Cascade | None:
    """Return the cascade that answers most messages, or None if none is safe.

    `lexical` and `scores` are out-of-fold outputs of the word model and of the classifier, `labels`
    0 or 1, all (messages,). At most `MOST_LOST` of the true positives at `threshold` may fall below
    the bound. The number lost is estimated as one more than observed (Laplace's rule of
    succession): none lost among twenty says little about the next.
    """
    calibration = Calibration(*fit_platt(lexical, labels))
    true_positives = np.sort(lexical[(labels == 1) & (scores >= threshold)])
    lost = int(MOST_LOST * (len(true_positives) + 2)) - 1
    if lost < 0:
        return None
    # Above the second value the word model would call some messages positive.
    logit = np.log(threshold) - np.log1p(-threshold)
    bound = min(true_positives[lost], (logit - calibration.intercept) / calibration.slope)
    return Cascade(float(bound), calibration) if (lexical < bound).any() else None
