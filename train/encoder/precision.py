"""The choice of the encoder's precision: int8 unless it costs quality."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from train.classifier import head, word_model
from train.classifier.calibration import best_threshold
from train.classifier.word_model import TextCounts
from train.compute.base import LOCAL, Compute
from train.data.folds import folds
from train.data.near_duplicates import near_duplicate_groups
from train.encoder.embedder import Embedder
from train.encoder.finetune import FineTuned
from train.evaluation.metrics import evaluate

LARGEST_LOSS = 0.003  # of F1
SAMPLE = 1500  # messages; embedding all of them in fp32 would take longer than training
FOLDS = 5
REPEATS = 6  # of the folds: F1 on one split of a sample varies by points


@dataclass(frozen=True)
class Figures:
    """Validation F1 and average precision on held-out folds, averaged over repeats."""

    f1: float
    average_precision: float


@dataclass(frozen=True)
class Comparison:
    """int8 against fp32 on the same messages and folds, and cosines between their embeddings."""

    figures: dict[str, Figures]
    mean_cosine: float
    lowest_cosine: float
    messages: int
    repeated: bool  # over several draws of the folds

    @property
    def loss(self) -> float:
        """The F1 that int8 loses, -1 to 1; negative if it gains."""
        return self.figures["fp32"].f1 - self.figures["int8"].f1

    @property
    def chosen(self) -> str:
        return "int8" if self.loss < LARGEST_LOSS else "fp32"

    def __str__(self) -> str:
        lines = [
            f"{precision}: validation F1 {figures.f1:.4f}, "
            f"average precision {figures.average_precision:.4f}"
            for precision, figures in self.figures.items()
        ]
        return "\n".join([*lines, f"chosen: {self.chosen}: {self.reason}"])

    @property
    def reason(self) -> str:
        comparison = "under" if self.chosen == "int8" else "not under"
        evidence = f"{REPEATS} x {FOLDS} folds" if self.repeated else "out-of-fold logits"
        return (
            f"int8 loses {100 * self.loss:.2f} points of F1, {comparison} the "
            f"{100 * LARGEST_LOSS:.1f} allowed ({evidence} of {self.messages} "
            f"messages); cosine to fp32 {self.mean_cosine:.4f} on average, "
            f"{self.lowest_cosine:.4f} at least"
        )

    def as_table(self) -> dict[str, Any]:
        """Return the entry of metrics.json."""
        rows = {precision: asdict(figures) for precision, figures in self.figures.items()}
        rows["int8"] |= {"mean_cosine": self.mean_cosine, "lowest_cosine": self.lowest_cosine}
        return {**rows, "chosen": self.chosen, "reason": self.reason}


@dataclass(frozen=True)
class Rejected:
    """No comparison: the int8 encoder cannot be used."""

    reason: str
    chosen: str = "fp32"

    def __str__(self) -> str:
        return f"chosen: fp32: {self.reason}"

    def as_table(self) -> dict[str, Any]:
        """Return the entry of metrics.json."""
        return asdict(self)


def compare(
    embedders: Mapping[str, Embedder],
    frame: pd.DataFrame,
    seed: int,
    tuned: FineTuned | None = None,
    compute: Compute = LOCAL,
) -> Comparison:
    """Compare `fp32` and `int8` embeddings by a classifier on the head's and word model's logits.

    `frame` are labelled messages of the training part, at least two per label; a sample is used. An
    encoder that was `tuned` on them has seen their labels, so the difference that int8 makes to
    its logits is added to its out-of-fold logits instead.
    """
    sample = _sample(frame, seed)
    texts, labels = sample["msg"].tolist(), sample["label"].to_numpy()
    embeddings = {
        precision: embedder.embed(texts, f"{precision} sample")
        for precision, embedder in embedders.items()
    }
    cosine = (embeddings["fp32"] * embeddings["int8"]).sum(axis=1)
    if tuned:
        out_of_fold = tuned.out_of_fold_logits[frame.index.get_indexer(sample.index)]
        fp32 = tuned.head.logits(embeddings["fp32"])
        figures = {
            precision: _figures(labels, expit(out_of_fold + tuned.head.logits(rows) - fp32))
            for precision, rows in embeddings.items()
        }
    else:
        groups = near_duplicate_groups(texts, progress=False)
        parts = list(folds(labels, groups, seed))
        words = word_model.out_of_fold(TextCounts.of(texts), labels, parts, seed, compute)
        figures = {}
        for precision, rows in embeddings.items():
            seeds, shared = range(seed, seed + REPEATS), (words, rows, labels, groups)
            with tqdm(total=REPEATS, desc=f"{precision} folds", unit="repeat") as bar:
                results = compute.map(_held_out, seeds, shared, bar.update)
            means = np.mean([astuple(result) for result in results], axis=0)
            figures[precision] = Figures(*means.tolist())
    return Comparison(figures, float(cosine.mean()), float(cosine.min()), len(texts), not tuned)


def _sample(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return about `SAMPLE` rows, stratified by label, with at least `FOLDS` of each label."""
    share = min(1, SAMPLE / len(frame))
    return pd.concat(
        rows.sample(min(len(rows), max(round(share * len(rows)), FOLDS)), random_state=seed)
        for _label, rows in frame.groupby("label")
    )


def _held_out(
    seed: int, words: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Figures:
    """Return the figures of a logistic regression on word model and head over held-out folds."""
    parts = list(folds(labels, groups, seed, FOLDS))
    columns = np.column_stack([words, head.out_of_fold(embeddings, labels, parts)])
    scores = np.empty(len(labels))
    for rest, fold in parts:
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(columns[rest], labels[rest])
        scores[fold] = model.predict_proba(columns[fold])[:, 1]
    return _figures(labels, scores)


def _figures(labels: np.ndarray, scores: np.ndarray) -> Figures:
    """Return F1 at its best threshold, and average precision."""
    metrics = evaluate(labels, scores, best_threshold(labels, scores))
    return Figures(metrics["f1"], metrics["average_precision"])
