"""Labels that are left out of training, because out-of-fold scores contradict them.

A wrong label costs most where it stands for a kind of message, such as sales among lets: the
classifier learns the kind from a handful of rows. It is a form of confident learning (Northcutt,
Jiang and Chuang, JAIR 2021), with one fixed bound for both labels instead of their thresholds:
docs/decisions/label-noise.md compares bounds, and what they cost if all labels are right.
"""

import numpy as np

LEAST_CREDIBLE = 0.1  # out-of-fold probability of a label below which it is left out
MOST_LEFT_OUT = 0.2  # of the messages with the same label: a bad model contradicts too many
FEWEST = 100  # messages with the same label: of fewer none is left out


def kept(labels: np.ndarray, scores: np.ndarray, checked: np.ndarray | None = None) -> np.ndarray:
    """Return which labels to learn from, (messages,), bool.

    `labels`, 0 or 1, and out-of-fold `scores`, 0 to 1, are (messages,). A label that somebody has
    `checked`, (messages,), bool, is always kept.
    """
    credible = np.where(labels == 1, scores, 1 - scores)
    result = np.ones(len(labels), bool)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        if len(rows) >= FEWEST:
            bound = min(LEAST_CREDIBLE, np.quantile(credible[rows], MOST_LEFT_OUT))
            result[rows] = credible[rows] >= bound
    return result if checked is None else result | checked
