"""Fit LightGBM on embeddings, and decide how its output is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from feedsieve.classifier import Calibration
from train.evaluate import best_threshold, evaluate, fit_platt

# Chosen by cross-validation within training messages: shallow trees, few columns a tree, since
# a message's meaning is spread over all columns and no single one says much.
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 10,
    "feature_fraction": 0.1,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
    "num_threads": 1,  # a third slower than two on an idle machine, ten times faster on a busy one
}
ROUNDS = 3000
PATIENCE = 50  # rounds without a better validation loss


@dataclass(frozen=True)
class Fitted:
    """A classifier's parts, and how scores of held-out rows did in choosing them."""

    booster: lightgbm.Booster
    calibration: Calibration
    threshold: float
    validation: dict[str, float]


def fit(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Fitted:
    """Fit on all rows, after all that is chosen was chosen on rows held out.

    Five boosters each stop early on a fifth of the rows that they have not seen. Their scores of
    those fifths decide calibration and threshold: all rows together, since a single fifth has few
    positives and moves the threshold by chance. The booster that is returned takes over their mean
    number of rounds. `features` is (n, columns), `labels` 0 or 1 and `groups`, which stay in one
    fold, are (n,).

    Raises ValueError if a label is in fewer than two groups.
    """
    parameters = PARAMETERS | {"seed": seed}
    logits = np.empty(len(labels))
    rounds = []
    parts = list(folds(labels, groups, seed))
    for rest, fold in tqdm(parts, desc="LightGBM", unit="fold"):
        rows = lightgbm.Dataset(features[rest], labels[rest])
        held = lightgbm.Dataset(features[fold], labels[fold], reference=rows)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        booster = lightgbm.train(parameters, rows, ROUNDS, valid_sets=[held], callbacks=[stop])
        logits[fold] = booster.predict(features[fold], raw_score=True)
        rounds.append(booster.best_iteration)
    calibration = Calibration(*fit_platt(logits, labels))
    scores = calibration.apply(logits)
    threshold = best_threshold(labels, scores)
    metrics = evaluate(labels, scores, threshold)
    everything = lightgbm.Dataset(features, labels)
    booster = lightgbm.train(parameters, everything, max(1, round(np.mean(rounds))))
    return Fitted(booster, calibration, threshold, metrics)


def folds(
    labels: np.ndarray, groups: np.ndarray, seed: int, most: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rest, fold) as row numbers, for up to `most` folds that keep groups whole.

    Raises ValueError if a label is in fewer than two groups.
    """
    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    if fewest < 2:
        raise ValueError("too few messages that are not copies of one another: 2 of each label")
    count = min(most, fewest)
    split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    yield from split.split(labels, labels, groups)
