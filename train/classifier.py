"""Fit LightGBM on features, and decide how its output is read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from feedsieve.calibration import Calibration
from feedsieve.cascade import Cascade
from feedsieve.classifier import Start
from train.compute import HERE, Compute
from train.evaluate import evaluate, expected_threshold, fit_platt

PARAMETERS_FILE = Path(__file__).with_name("parameters.json")
FIXED: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
    "num_threads": 1,  # a third slower than two on an idle machine, ten times faster on a busy one
}
# For classifiers of a frozen and of a fine-tuned encoder; docs/decisions/classifier.md says how
# they were found.
PARAMETERS: dict[str, dict[str, Any]] = {
    encoder: FIXED | chosen
    for encoder, chosen in json.loads(PARAMETERS_FILE.read_text(encoding="utf-8")).items()
}
ROUNDS = 3000
PATIENCE = 50  # rounds without a better validation loss


@dataclass(frozen=True)
class Fitted:
    """A classifier's parts, and how scores of held-out rows did in choosing them."""

    booster: lightgbm.Booster
    start: Start
    calibration: Calibration
    threshold: float
    held_out: np.ndarray  # a score for each row by a booster that had not learnt from it, (rows,)
    validation: dict[str, float]
    cascade: Cascade | None = None  # in which words alone answer where they are sure


@dataclass(frozen=True)
class HeldOut:
    """What boosters said of rows that they had not learnt from, though each stopped by its own."""

    logits: np.ndarray  # (rows,)
    rounds: list[int]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    log_odds: int = 0,
    parameters: Mapping[str, Any] = PARAMETERS["frozen"],
    compute: Compute = HERE,
) -> Fitted:
    """Fit on all rows, after all that is chosen was chosen on rows held out.

    Boosting starts from a logistic regression of the first `log_odds` columns, which are log-odds
    of positive already, so that trees only learn what these leave open. Of these columns the first
    is the lexicon's and the second the head's, on which no tree splits. Five boosters each stop
    early on a fifth of the rows that they have not seen. Their scores of those fifths decide
    calibration and threshold: all rows together, since a single fifth has few positives. The
    booster that is returned takes over their mean number of rounds. `features` is (n, columns),
    `labels` 0 or 1 and `groups`, which stay in one fold, are (n,).

    Each of the five is one thing for `compute` to do, and the same wherever it does it. Early
    stopping has no place in LightGBM's distributed training: each worker would stop by its own
    share of the held-out rows, and the others would wait for it. That leaves the last booster.

    Raises NoEngine, and ValueError if a label is in fewer than two groups.
    """
    parameters = {**parameters, "seed": seed}
    parts = list(folds(labels, groups, seed))
    judged = held_out(features, labels, parts, parameters, log_odds, progress=True, compute=compute)
    calibration = Calibration(*fit_platt(judged.logits, labels))
    calibrated = calibration.apply(judged.logits)
    threshold = expected_threshold(calibrated)
    metrics = evaluate(labels, calibrated, threshold)
    start = _start(features, labels, log_odds)
    rounds = max(1, round(np.mean(judged.rounds)))
    parameters |= _no_split_on_head(features.shape[1], log_odds)
    booster = compute.boost(parameters, features, labels, _begun(start, features), rounds)
    return Fitted(booster, start, calibration, threshold, calibrated, metrics)


def _no_split_on_head(columns: int, log_odds: int) -> dict[str, Any]:
    """Return the parameter that keeps trees from splitting on the head's logit.

    Boosting starts from a line through it, which carries all of it. A tree's step would enlarge
    the last bits of an embedding, which differ between CPUs, to several points of a score.
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
    compute: Compute = HERE,
) -> HeldOut:
    """Return what boosters that had not seen a row say of it; `parts` are (rest, fold)."""
    parameters = {**parameters, **_no_split_on_head(features.shape[1], log_odds)}
    shared = features, labels, parameters, log_odds, most_rounds
    with tqdm(total=len(parts), desc="LightGBM", unit="fold", disable=not progress) as bar:
        judged = compute.map(_fit_fold, parts, shared, bar.update)
    logits = np.empty(len(labels))
    for (_rest, fold), (found, _rounds) in zip(parts, judged, strict=True):
        logits[fold] = found
    return HeldOut(logits, [rounds for _found, rounds in judged])


def _fit_fold(
    part: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    parameters: dict[str, Any],
    log_odds: int,
    most_rounds: int,
) -> tuple[np.ndarray, int]:
    """Return what a booster says of one fold, (rows of the fold,), and when it stopped."""
    rest, fold = part
    start = _start(features[rest], labels[rest], log_odds)
    rows = _dataset(features[rest], labels[rest], start)
    held = _dataset(features[fold], labels[fold], start, rows)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(parameters, rows, most_rounds, valid_sets=[held], callbacks=[stop])
    return start.boosted(booster, features[fold]), booster.best_iteration


def _start(features: np.ndarray, labels: np.ndarray, log_odds: int) -> Start:
    """Fit what boosting starts from; without such columns that is nothing."""
    if not log_odds:
        return Start([], [], 0.0)
    scaler = StandardScaler().fit(features[:, :log_odds])
    model = LogisticRegression().fit(scaler.transform(features[:, :log_odds]), labels)
    weights = model.coef_[0] / scaler.scale_
    return Start(weights.tolist(), scaler.mean_.tolist(), float(model.intercept_[0]))


def _dataset(
    features: np.ndarray,
    labels: np.ndarray,
    start: Start,
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    begun = _begun(start, features)
    return lightgbm.Dataset(features, labels, init_score=begun, reference=reference)


def _begun(start: Start, features: np.ndarray) -> np.ndarray | None:
    return start.logits(features) if start.weights else None


def folds(
    labels: np.ndarray, groups: np.ndarray, seed: int, most: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rest, fold) as row numbers, for up to `most` folds that keep groups whole.

    Raises ValueError if a label is in fewer than two groups.
    """
    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    if fewest < 2:
        positive, negative = (len(np.unique(groups[labels == label])) for label in (1, 0))
        raise ValueError(
            "too few messages that are not copies of one another: 2 positive and 2 negative are"
            f" needed, and there are {positive} and {negative}"
        )
    count = min(most, fewest)
    split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    yield from split.split(labels, labels, groups)
