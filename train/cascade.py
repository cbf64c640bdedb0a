"""Choose where words alone answer: where they cost next to none of the messages that matter."""

from dataclasses import replace

import numpy as np

from feedsieve.calibration import Calibration
from feedsieve.cascade import Cascade
from train.classifier import Fitted
from train.evaluate import evaluate, fit_platt

MOST_LOST = 0.002  # of the positives that are found without a cascade: 500 are needed for one


def put_before(fitted: Fitted, lexical: np.ndarray, labels: np.ndarray) -> Fitted:
    """Return `fitted` with a cascade, if one is safe; held-out scores and figures are with it.

    `lexical` is what lexicons said of the messages that `fitted` learnt from, which they had not
    seen, `labels` are 0 or 1, both (messages,).
    """
    cascade = choose(lexical, fitted.held_out, labels, fitted.threshold)
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
    """Return the cascade that answers most, None if none is safe.

    `lexical` and `scores` are what a lexicon and a whole classifier said of messages that they had
    not learnt from, `labels` 0 or 1, all (messages,). Of the positives that have a score of
    `threshold` or more, at most `MOST_LOST` may be below the bound, reckoned as one more than there
    are (Laplace's rule of succession): that none of twenty is lost says little of the next.
    """
    calibration = Calibration(*fit_platt(lexical, labels))
    found = np.sort(lexical[(labels == 1) & (scores >= threshold)])
    lost = int(MOST_LOST * (len(found) + 2)) - 1
    if lost < 0:
        return None
    # Above the second value words would call some positive.
    logit = np.log(threshold) - np.log1p(-threshold)
    bound = min(found[lost], (logit - calibration.intercept) / calibration.slope)
    return Cascade(float(bound), calibration) if (lexical < bound).any() else None
