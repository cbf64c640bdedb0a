"""The models that are compared: each is fitted on one part of the messages and scores another."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from export import pipeline as export
from export.sources import Source
from feedsieve.scoring.calibration import Calibration
from feedsieve.text import plain
from train.classifier import boosting, stacking
from train.classifier.boosting import Fitted
from train.classifier.calibration import expected_threshold, fit_platt
from train.data.folds import folds
from train.encoder.distil import distil, transfer_set
from train.encoder.embedder import Embedder
from train.encoder.finetune import finetune
from train.evaluation.baseline import linear_svc

LOGISTIC = "TF-IDF, logistic regression"
SVC = "TF-IDF, LinearSVC"
FROZEN_ALONE = "frozen encoder, LightGBM on its embedding"
FROZEN = "frozen encoder, features, LightGBM"
SOFTMAX = "fine-tuned encoder, softmax head"  # its two classes as one logit
TUNED_32 = "fine-tuned encoder, features, LightGBM (fp32)"
TUNED_8 = "fine-tuned encoder, features, LightGBM (int8)"


@dataclass(frozen=True)
class Part:
    """Labelled messages to fit a model on, and texts to score."""

    texts: list[str]
    labels: np.ndarray  # 0 or 1
    groups: np.ndarray  # of near-duplicates, which stay in one fold
    held_out: list[str]
    checked: np.ndarray  # whether somebody has checked a label, bool


@dataclass(frozen=True)
class Predictions:
    """Scores of the held-out texts, (texts,), and the threshold chosen without them."""

    scores: np.ndarray
    threshold: float


def linear(part: Part, seed: int, ways: Sequence[str] = (LOGISTIC, SVC)) -> dict[str, Predictions]:
    """Score with linear models over words and characters, all scikit-learn.

    Raises ValueError if texts are so few or alike that a model has no terms to learn from.
    """
    models = {
        LOGISTIC: make_pipeline(
            TfidfVectorizer(max_df=0.2, min_df=min(18, max(1, len(part.texts) // 100))),
            LogisticRegression(max_iter=1000, random_state=seed),
        ),
        SVC: linear_svc(seed),
    }
    texts = np.array([plain(text) for text in part.texts], dtype=object)
    held_out = [plain(text) for text in part.held_out]
    predictions = {}
    for name in ways:
        model = models[name]
        out_of_fold_logits = np.empty(len(texts))
        for rest, fold in folds(part.labels, part.groups, seed):
            fitted = clone(model).fit(texts[rest], part.labels[rest])
            out_of_fold_logits[fold] = fitted.decision_function(texts[fold])
        logits = clone(model).fit(texts, part.labels).decision_function(held_out)
        predictions[name] = _calibrate(out_of_fold_logits, part.labels, logits)
    return predictions


def frozen_alone(part: Part, embedder: Embedder, seed: int) -> dict[str, Predictions]:
    """Score with LightGBM on the embedding of a frozen encoder, without other features."""
    fitted = boosting.fit(embedder.embed(part.texts, "embed"), part.labels, part.groups, seed)
    return {FROZEN_ALONE: _boosted(fitted, embedder.embed(part.held_out, "embed"))}


def frozen(part: Part, embedder: Embedder, seed: int) -> dict[str, Predictions]:
    """Score with a frozen encoder as `python -m train` does."""
    embeddings = embedder.embed(part.texts, "embed")
    features, fitted = stacking.fit(
        part.texts, part.labels, part.groups, embeddings, None, seed, checked=part.checked
    )
    columns = features.columns(part.held_out, embedder.embed(part.held_out, "embed"))
    return {FROZEN: _boosted(fitted, columns)}


def tuned(
    part: Part,
    source: Source,
    seed: int,
    checkpoints: Path,
    threads: int,
    layers: Sequence[int] | None = None,
) -> dict[str, Predictions]:
    """Score with a fine-tuned encoder: its softmax head alone, and with LightGBM.

    With `layers`, the encoder is a student of these layers of `source`, distilled on the texts of
    `part` before fine-tuning. Checkpoints go into the folder `checkpoints`.
    """
    student = None
    if layers is not None:
        texts = transfer_set(part.texts, [], part.held_out, seed)
        student = distil(source, layers, texts, seed, checkpoints).source
    found = finetune(source, part.texts, part.labels, part.groups, seed, checkpoints, student)
    features, fitted = stacking.fit(
        part.texts, part.labels, part.groups, None, found, seed, checked=part.checked
    )
    with tempfile.TemporaryDirectory(prefix="feedsieve-compare-") as folder:
        encoders = export.export_encoder(found.source, Path(folder), part.held_out, threads)
        embeddings = {
            precision: Embedder(encoder).embed(part.held_out, f"{precision} embed")
            for precision, encoder in encoders.items()
        }
    predictions = {
        SOFTMAX: _calibrate(
            found.out_of_fold_logits, part.labels, found.head.logits(embeddings["fp32"])
        )
    }
    for name, precision in {TUNED_32: "fp32", TUNED_8: "int8"}.items():
        if precision in embeddings:  # int8 may have been rejected
            columns = features.columns(part.held_out, embeddings[precision])
            predictions[name] = _boosted(fitted, columns)
    if layers is None:
        return predictions
    size = f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"
    return {
        name.replace("encoder", f"encoder of {size}", 1): one for name, one in predictions.items()
    }


def _calibrate(
    out_of_fold_logits: np.ndarray, labels: np.ndarray, logits: np.ndarray
) -> Predictions:
    """Calibrate `logits` and choose a threshold on the out-of-fold logits and their labels."""
    calibration = Calibration(*fit_platt(out_of_fold_logits, labels))
    threshold = expected_threshold(calibration.apply(out_of_fold_logits))
    return Predictions(calibration.apply(logits), threshold)


def _boosted(fitted: Fitted, columns: np.ndarray) -> Predictions:
    logits = fitted.start.boosted(fitted.booster, columns)
    return Predictions(fitted.calibration.apply(logits), fitted.threshold)
