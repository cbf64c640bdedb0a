"""The models that are compared: each fitted on one part of the messages, scoring another."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from export import pipeline as export
from export.sources import Source
from feedsieve.calibration import Calibration
from feedsieve.text import plain
from train import classifier, stack
from train.classifier import Fitted
from train.distil import imitate, texts_to_imitate
from train.embedding import Embedder
from train.evaluate import expected_threshold, fit_platt
from train.finetune import finetune

LOGISTIC = "TF-IDF, logistic regression"
SVC = "TF-IDF, LinearSVC"
FROZEN_ALONE = "frozen encoder, LightGBM on its embedding"
FROZEN = "frozen encoder, features, LightGBM"
SOFTMAX = "fine-tuned encoder, softmax head"  # of two classes, as one logit
TUNED_32 = "fine-tuned encoder, features, LightGBM (fp32)"
TUNED_8 = "fine-tuned encoder, features, LightGBM (int8)"


@dataclass(frozen=True)
class Part:
    """Messages to learn from, and messages to be judged on; labels are 0 or 1."""

    texts: list[str]
    labels: np.ndarray
    groups: np.ndarray  # near-duplicates, which stay in one fold
    judged: list[str]


@dataclass(frozen=True)
class Judgement:
    """Scores of the judged messages, (judged,), and the threshold that was chosen before."""

    scores: np.ndarray
    threshold: float


def linear(part: Part, seed: int) -> dict[str, Judgement]:
    """Return what linear models of words and characters say; plain scikit-learn."""
    models: dict[str, Callable[[], BaseEstimator]] = {
        LOGISTIC: lambda: make_pipeline(
            TfidfVectorizer(max_df=0.2, min_df=min(18, max(1, len(part.texts) // 100))),
            LogisticRegression(max_iter=1000, random_state=seed),
        ),
        SVC: lambda: make_pipeline(
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
                TfidfVectorizer(analyzer="char", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
            ),
            LinearSVC(class_weight="balanced", random_state=seed),
        ),
    }
    texts = np.array([plain(text) for text in part.texts], dtype=object)
    judged = [plain(text) for text in part.judged]
    judgements = {}
    for name, make in models.items():
        held_out = np.empty(len(texts))
        for rest, fold in classifier.folds(part.labels, part.groups, seed):
            model = make().fit(texts[rest], part.labels[rest])
            held_out[fold] = model.decision_function(texts[fold])
        logits = make().fit(texts, part.labels).decision_function(judged)
        judgements[name] = _judge(held_out, part.labels, logits)
    return judgements


def frozen(part: Part, embedder: Embedder, seed: int) -> dict[str, Judgement]:
    """Return what LightGBM makes of the encoder as it comes."""
    embeddings = embedder.embed(part.texts, "embed")
    judged = embedder.embed(part.judged, "embed")
    alone = classifier.fit(embeddings, part.labels, part.groups, seed)
    features, fitted = stack.fit(part.texts, part.labels, part.groups, embeddings, None, seed)
    return {
        FROZEN_ALONE: _boosted(alone, judged),
        FROZEN: _boosted(fitted, features.columns(part.judged, judged)),
    }


def tuned(
    part: Part,
    source: Source,
    seed: int,
    cache: Path,
    threads: int,
    kept: Sequence[int] | None = None,
) -> dict[str, Judgement]:
    """Return what the fine-tuned encoder says by its head, and with LightGBM on top.

    With `kept` it is a smaller encoder of those layers of `source`, which imitates it on what it
    learns from before. What fine-tuning keeps to go on from stays below `cache`.
    """
    student = None
    if kept is not None:
        texts = texts_to_imitate(part.texts, [], part.judged, seed)
        student = imitate(source, kept, texts, seed, cache).source
    found = finetune(source, part.texts, part.labels, part.groups, seed, cache, student)
    features, fitted = stack.fit(part.texts, part.labels, part.groups, None, found, seed)
    with tempfile.TemporaryDirectory(prefix="feedsieve-compare-") as folder:
        encoders = export.export_encoder(found.source, Path(folder), part.judged, threads)
        embeddings = {
            precision: Embedder(encoder).embed(part.judged, f"{precision} embed")
            for precision, encoder in encoders.items()
        }
    judgements = {
        SOFTMAX: _judge(found.verdicts, part.labels, found.head.logits(embeddings["fp32"]))
    }
    for name, precision in {TUNED_32: "fp32", TUNED_8: "int8"}.items():
        if precision in embeddings:  # 8 bits may be refused
            columns = features.columns(part.judged, embeddings[precision])
            judgements[name] = _boosted(fitted, columns)
    return {_of_layers(name, kept): judgement for name, judgement in judgements.items()}


def _of_layers(name: str, kept: Sequence[int] | None) -> str:
    """Return what a contender called `name` is called if its encoder has only the layers `kept`."""
    if kept is None:
        return name
    layers = f"{len(kept)} layer{'s' if len(kept) > 1 else ''}"
    return name.replace("encoder", f"encoder of {layers}", 1)


def _judge(held_out: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Judgement:
    """Calibrate `logits`, and choose a threshold, by those of messages that were held out."""
    calibration = Calibration(*fit_platt(held_out, labels))
    return Judgement(calibration.apply(logits), expected_threshold(calibration.apply(held_out)))


def _boosted(fitted: Fitted, columns: np.ndarray) -> Judgement:
    logits = fitted.start.boosted(fitted.booster, columns)
    return Judgement(fitted.calibration.apply(logits), fitted.threshold)
