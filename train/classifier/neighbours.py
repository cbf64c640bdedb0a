"""The share of positives among the most similar messages."""

import numpy as np

NEAREST = 20  # messages that vote
TEMPERATURE = 0.03  # of cosine similarity: the nearest count most
_ROWS = 500  # compared with all others together


def vote(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the share of positives among the neighbours of each message, (messages,), 0 to 1.

    `embeddings`, (messages, dimension), have unit length; `labels`, 0 or 1, and `groups` of
    near-duplicates, which do not vote on each other, are (messages,).
    """
    shares = np.empty(len(labels))
    nearest = min(NEAREST, len(labels) - 1)
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = embeddings[rows] @ embeddings.T
        similarity[groups[rows, None] == groups] = -np.inf
        voters = np.argpartition(-similarity, nearest, axis=1)[:, :nearest]
        close = np.take_along_axis(similarity, voters, axis=1)
        nearby = np.maximum(close.max(axis=1, keepdims=True), -1)  # without any voter: -inf
        weights = np.exp((close - nearby) / TEMPERATURE)
        total = weights.sum(axis=1)
        votes = (weights * labels[voters]).sum(axis=1)
        shares[rows] = np.where(total > 0, votes / np.where(total > 0, total, 1), 0.5)
    return np.clip(shares, 0, 1)  # rounding may go beyond
