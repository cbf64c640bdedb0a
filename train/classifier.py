"""Fit LightGBM on embeddings, and decide how its output is read."""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from tqdm import tqdm

from feedsieve.classifier import Calibration
from train.evaluate import best_threshold, fit_platt

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
}
ROUNDS = 3000
PATIENCE = 50  # rounds without a better validation loss


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    seed: int,
    threads: int = 0,
) -> lightgbm.Booster:
    """Return the booster of the round with the lowest loss on the validation rows.

    Features are `(n, columns)`, labels 0 or 1 of shape `(n,)`.
    """
    rows = lightgbm.Dataset(features, labels)
    validation = lightgbm.Dataset(validation_features, validation_labels, reference=rows)
    with tqdm(total=ROUNDS, desc="LightGBM", unit="round") as progress:
        return lightgbm.train(
            PARAMETERS | {"seed": seed, "num_threads": threads},
            rows,
            ROUNDS,
            valid_sets=[validation],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), _show(progress)],
        )


def calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[Calibration, float]:
    """Return the calibration of a booster's logits, and the threshold of the highest F1."""
    calibration = Calibration(*fit_platt(logits, labels))
    return calibration, best_threshold(labels, calibration.apply(logits))


def _show(progress: tqdm) -> Callable[[Any], None]:
    def after_round(environment: Any) -> None:
        loss = environment.evaluation_result_list[0][2]
        progress.set_postfix(validation_loss=f"{loss:.4f}", refresh=False)
        progress.update()

    return after_round
