"""Which encoder to serve: 8 bits unless they cost quality that 32 bits keep."""

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

from train import head as heads
from train import lexical
from train.classifier import folds
from train.compute import HERE, Compute
from train.duplicates import near_duplicate_groups
from train.embedding import Embedder
from train.evaluate import best_threshold, evaluate
from train.finetune import FineTuned

LARGEST_LOSS = 0.003  # of F1
SAMPLE = 1500  # messages; embedding all of them in 32 bits would take longer than training
FOLDS = 5
REPEATS = 6  # F1 on a sample moves by points from split to split; the average moves less


@dataclass(frozen=True)
class Figures:
    """Validation F1 and average precision on held-out folds, averaged over repeats."""

    f1: float
    average_precision: float


@dataclass(frozen=True)
class Comparison:
    """int8 against fp32 on the same messages and folds; cosines are between the two."""

    figures: dict[str, Figures]
    mean_cosine: float
    lowest_cosine: float
    messages: int
    repeated: bool  # whether the folds were drawn several times

    @property
    def loss(self) -> float:
        """F1 that int8 loses, 0 to 1; negative if it gains."""
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
        verdict = "under" if self.chosen == "int8" else "not under"
        repeats = f"{REPEATS} x {FOLDS} folds" if self.repeated else "held-out verdicts"
        return (
            f"int8 loses {100 * self.loss:.2f} points of F1, {verdict} the "
            f"{100 * LARGEST_LOSS:.1f} allowed ({repeats} of {self.messages} "
            f"messages); cosine to fp32 {self.mean_cosine:.4f} on average, "
            f"{self.lowest_cosine:.4f} at least"
        )

    def as_table(self) -> dict[str, Any]:
        """Return the comparison as the report and the metrics show it."""
        rows = {precision: asdict(figures) for precision, figures in self.figures.items()}
        rows["int8"] |= {"mean_cosine": self.mean_cosine, "lowest_cosine": self.lowest_cosine}
        return {**rows, "chosen": self.chosen, "reason": self.reason}


@dataclass(frozen=True)
class Refused:
    """No comparison: the encoder in 8 bits cannot be used, and the one in 32 bits is kept."""

    reason: str
    chosen: str = "fp32"

    def __str__(self) -> str:
        return f"chosen: fp32: {self.reason}"

    def as_table(self) -> dict[str, Any]:
        """Return it as the report and the metrics show it."""
        return asdict(self)


def compare(
    embedders: Mapping[str, Embedder],
    frame: pd.DataFrame,
    seed: int,
    tuned: FineTuned | None = None,
    compute: Compute = HERE,
) -> Comparison:
    """Compare the embeddings of `fp32` and `int8` by what a classifier makes of them and of words.

    `frame` holds labelled messages that are not of the test part, at least 2 of each label; a
    sample of it is used. An encoder that was `tuned` on them knows their labels, so there what
    8 bits change in its verdicts is added to the verdicts of those that did not know them.
    """
    sample = _sample(frame, seed)
    texts, labels = sample["msg"].tolist(), sample["label"].to_numpy()
    embeddings = {
        precision: embedder.embed(texts, f"{precision} sample")
        for precision, embedder in embedders.items()
    }
    cosine = (embeddings["fp32"] * embeddings["int8"]).sum(axis=1)
    if tuned:
        honest = tuned.verdicts[frame.index.get_indexer(sample.index)]
        full = tuned.head.logits(embeddings["fp32"])
        figures = {
            precision: _figures(labels, expit(honest + tuned.head.logits(rows) - full))
            for precision, rows in embeddings.items()
        }
    else:
        groups = near_duplicate_groups(texts, progress=False)
        parts = list(folds(labels, groups, seed))
        words = lexical.out_of_fold(texts, labels, parts, seed, compute)
        figures = {}
        for precision, rows in embeddings.items():
            seeds, shared = range(seed, seed + REPEATS), (words, rows, labels, groups)
            with tqdm(total=REPEATS, desc=f"{precision} folds", unit="repeat") as bar:
                results = compute.map(_held_out, seeds, shared, bar.update)
            means = np.mean([astuple(result) for result in results], axis=0)
            figures[precision] = Figures(*means.tolist())
    return Comparison(figures, float(cosine.mean()), float(cosine.min()), len(texts), not tuned)


def _sample(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return about `SAMPLE` rows, labels in proportion, but enough of a rare one for the folds."""
    share = min(1, SAMPLE / len(frame))
    return pd.concat(
        rows.sample(min(len(rows), max(round(share * len(rows)), FOLDS)), random_state=seed)
        for _label, rows in frame.groupby("label")
    )


def _held_out(
    seed: int, words: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Figures:
    """Return the figures of a logistic regression of words and head over the held-out folds."""
    parts = list(folds(labels, groups, seed, FOLDS))
    columns = np.column_stack([words, heads.out_of_fold(embeddings, labels, parts)])
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
