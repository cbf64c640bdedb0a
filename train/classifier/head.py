"""A linear head on a frozen encoder's embeddings."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from feedsieve.scoring.features import Head

# Inverse strength of the L2 penalty, on standardised embeddings. F1 varies by half a point between
# 0.001 and 0.1; this value makes scores least sensitive to rounding of the embeddings
# (docs/decisions/classifier.md).
C = 0.003
MOST_ITERATIONS = 2000


def fit(embeddings: np.ndarray, labels: np.ndarray) -> Head:
    """Return a logistic regression of `labels`, 0 or 1, (texts,), on (texts, dimension)."""
    scaler = StandardScaler().fit(embeddings)
    model = LogisticRegression(C=C, max_iter=MOST_ITERATIONS)
    model.fit(scaler.transform(embeddings), labels)
    weights = model.coef_[0] / scaler.scale_
    return Head(weights, float(model.intercept_[0] - weights @ scaler.mean_))


def out_of_fold(
    embeddings: np.ndarray, labels: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return out-of-fold logits, (texts,).

    `parts` are pairs of row numbers, (rest, fold), whose folds hold each row once.
    """
    logits = np.empty(len(labels))
    for rest, fold in parts:
        logits[fold] = fit(embeddings[rest], labels[rest]).logits(embeddings[fold])
    return logits
