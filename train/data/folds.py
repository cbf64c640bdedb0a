"""Cross-validation folds that keep near-duplicates together."""

from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

SEED = 7  # of a training's folds and test part, so that all its models can be compared on the same


def folds(
    labels: np.ndarray, groups: np.ndarray, seed: int, most: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield up to `most` pairs (rest, fold) of row numbers, stratified by label.

    `labels`, 0 or 1, and `groups`, each kept within one fold, are (rows,).
    Raises ValueError if a label occurs in fewer than two groups.
    """
    negative, positive = (len(np.unique(groups[labels == label])) for label in (0, 1))
    if min(negative, positive) < 2:
        raise ValueError(
            "too few messages: apart from near-duplicates there are"
            f" {positive} positive and {negative} negative, and 2 of each are needed"
        )
    count = min(most, negative, positive)
    split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    yield from split.split(labels, labels, groups)
