"""LightGBM: fitting, calibration and threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.cascade import Cascade
from feedsieve.scoring.classifier import Start
from train.classifier.calibration import expected_threshold, fit_platt
from train.classifier.parameters import PARAMETERS
from train.compute.base import LOCAL, Compute
from train.data.folds import SEED, folds
from train.evaluation.metrics import evaluate

ROUNDS = 3000
PATIENCE = 50  # rounds without a better validation loss


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier, and its performance on held-out rows."""

    booster: lightgbm.Booster
    start: Start
    calibration: Calibration
    threshold: float
    held_out: np.ndarray  # out-of-fold scores, (rows,)
    folds: np.ndarray  # the number of each row's fold, from 0
    validation: dict[str, float]
    cascade: Cascade | None = None
    views: Mapping[str, np.ndarray] = field(default_factory=dict)  # other out-of-fold scores


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold predictions of boosters that stopped early by their own held-out fold."""

    logits: np.ndarray  # (rows,)
    rounds: list[int]  # of each fold's booster


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    log_odds: int = 0,
    parameters: Mapping[str, Any] = PARAMETERS["frozen"],
    compute: Compute = LOCAL,
    kept: np.ndarray | None = None,
) -> Fitted:
    """Fit on all rows, with the number of rounds, calibration and threshold found in five folds.

    `features` are (rows, columns), `labels`, 0 or 1, and `groups`, each within one fold, (rows,).
    The first `log_odds` columns are logits of positive: the word model's and perhaps the head's.
    Boosting starts from a logistic regression of these, and no tree splits on the head's.

    Calibration and threshold use the scores of all five held-out folds together, since one fold has
    few positives. The final booster has the mean number of rounds of the five. Labels that are not
    `kept`, (rows,), bool, are left out of all of it, and their rows have scores all the same.

    `compute` runs one task per fold, with the same result everywhere. Early stopping does not work
    in LightGBM's distributed training: each worker would stop by its own share of the held-out
    rows, and the others would wait for it. So only the final booster is trained that way.

    Raises ClusterUnavailable, and ValueError if a label has fewer than two groups.
    """
    parameters = {**parameters, "seed": seed}
    kept = np.ones(len(labels), bool) if kept is None else kept
    parts = list(folds(labels, groups, SEED))
    validated = held_out(
        features, labels, parts, parameters, log_odds, progress=True, compute=compute, kept=kept
    )
    calibration = Calibration(*fit_platt(validated.logits[kept], labels[kept]))
    scores = calibration.apply(validated.logits)
    threshold = expected_threshold(scores[kept])
    metrics = evaluate(labels, scores, threshold)
    features, labels = features[kept], labels[kept]
    start = _fit_start(features, labels, log_odds)
    rounds = max(1, round(np.mean(validated.rounds)))
    parameters |= _no_split_on_head(features.shape[1], log_odds)
    booster = compute.boost(parameters, features, labels, _start_logits(start, features), rounds)
    numbers = np.empty(len(scores), int)
    for number, (_rest, fold) in enumerate(parts):
        numbers[fold] = number
    return Fitted(booster, start, calibration, threshold, scores, numbers, metrics)


def _no_split_on_head(columns: int, log_odds: int) -> dict[str, Any]:
    """Return the parameter that keeps trees from splitting on the head's logit.

    The linear start carries all of it. A split would turn the last bits of an embedding, which
    differ between CPUs, into several points of a score.
    """
    if log_odds < 2:
        return {}
    return {"feature_contri": [1.0, 0.0] + [1.0] * (columns - 2)}


def held_out(
    features: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    parameters: Mapping[str, Any],
    log_odds: int,
    most_rounds: int = ROUNDS,
    progress: bool = False,
    compute: Compute = LOCAL,
    kept: np.ndarray | None = None,
) -> HeldOut:
    """Fit a booster without each fold and return its logits of that fold; `parts` are (rest, fold).

    Only rows that are `kept`, (rows,), bool, are learned, and decide when to stop.
    Raises ClusterUnavailable.
    """
    parameters = {**parameters, **_no_split_on_head(features.shape[1], log_odds)}
    kept = np.ones(len(labels), bool) if kept is None else kept
    shared = features, labels, parameters, log_odds, most_rounds, kept
    quiet: dict[str, Any] = {} if progress else {"disable": True}  # False beats TQDM_DISABLE
    with tqdm(total=len(parts), desc="LightGBM", unit="fold", **quiet) as bar:
        results = compute.map(_fit_fold, parts, shared, bar.update)
    logits = np.empty(len(labels))
    for (_rest, fold), (fold_logits, _rounds) in zip(parts, results, strict=True):
        logits[fold] = fold_logits
    return HeldOut(logits, [rounds for _logits, rounds in results])


def _fit_fold(
    part: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    parameters: dict[str, Any],
    log_odds: int,
    most_rounds: int,
    kept: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Return the logits of the held-out fold, (rows of the fold,), and the number of rounds."""
    rest, fold = part
    rest, judging = rest[kept[rest]], fold[kept[fold]]
    start = _fit_start(features[rest], labels[rest], log_odds)
    training = lightgbm.Dataset(
        features[rest], labels[rest], init_score=_start_logits(start, features[rest])
    )
    validation = training.create_valid(
        features[judging], labels[judging], init_score=_start_logits(start, features[judging])
    )
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(
        parameters, training, most_rounds, valid_sets=[validation], callbacks=[stop]
    )
    return start.boosted(booster, features[fold]), booster.best_iteration


def _fit_start(features: np.ndarray, labels: np.ndarray, log_odds: int) -> Start:
    """Fit the logistic regression that boosting starts from; empty without log-odds columns."""
    if not log_odds:
        return Start([], [], 0.0)
    scaler = StandardScaler().fit(features[:, :log_odds])
    model = LogisticRegression().fit(scaler.transform(features[:, :log_odds]), labels)
    weights = model.coef_[0] / scaler.scale_
    return Start(weights.tolist(), scaler.mean_.tolist(), float(model.intercept_[0]))


def _start_logits(start: Start, features: np.ndarray) -> np.ndarray | None:
    return start.logits(features) if start.weights else None
