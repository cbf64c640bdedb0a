"""Fit LightGBM on embeddings, and decide how its output is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
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
    """A classifier's parts, and how it did on the validation rows before it was given them too."""

    booster: lightgbm.Booster
    calibration: Calibration
    threshold: float
    validation: dict[str, float]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    training: slice,
    validation: slice,
    seed: int,
) -> Fitted:
    """Fit on the `training` rows, decide on the `validation` rows, then fit again on both.

    Rounds (early stopping), calibration and threshold are chosen on rows the first booster has
    not seen. The second one takes them over, and a quarter more messages to learn from.
    Features are `(n, columns)`, labels 0 or 1 of shape `(n,)`.
    """
    parameters = PARAMETERS | {"seed": seed}
    rows = lightgbm.Dataset(features[training], labels[training])
    held = lightgbm.Dataset(features[validation], labels[validation], reference=rows)
    with tqdm(total=ROUNDS, desc="LightGBM", unit="round") as progress:
        first = lightgbm.train(
            parameters,
            rows,
            ROUNDS,
            valid_sets=[held],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), _show(progress)],
        )
    logits = np.asarray(first.predict(features[validation], raw_score=True))
    calibration = Calibration(*fit_platt(logits, labels[validation]))
    scores = calibration.apply(logits)
    threshold = best_threshold(labels[validation], scores)
    metrics = evaluate(labels[validation], scores, threshold)
    booster = lightgbm.train(parameters, lightgbm.Dataset(features, labels), first.best_iteration)
    return Fitted(booster, calibration, threshold, metrics)


def _show(progress: tqdm) -> Callable[[Any], None]:
    def after_round(environment: Any) -> None:
        loss = environment.evaluation_result_list[0][2]
        progress.set_postfix(validation_loss=f"{loss:.4f}", refresh=False)
        progress.update()

    return after_round
