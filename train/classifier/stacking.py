"""Stacking: LightGBM on the outputs of word model and head, and on handcrafted features.

LightGBM is fitted on out-of-fold logits of the models below it. All of it, except a fine-tuned
head, is fitted twice: the second time without the labels that the first contradicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from feedsieve.scoring.features import Features, assemble
from train.classifier import boosting, cascade, doubted, head, neighbours, word_model
from train.classifier.boosting import Fitted
from train.classifier.calibration import calibrate
from train.classifier.handcrafted import handcrafted_features
from train.classifier.parameters import PARAMETERS
from train.classifier.word_model import TextCounts
from train.compute.base import LOCAL, Compute
from train.data.folds import SEED, folds
from train.encoder.finetune import FineTuned

VIEWS = ("words", "encoder")  # of the log-odds columns
NEIGHBOURS = "neighbours"


def fit(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
    compute: Compute = LOCAL,
    checked: np.ndarray | None = None,
) -> tuple[Features, Fitted]:
    """Return the features of any text, and LightGBM fitted on them; see `columns`.

    Labels that out-of-fold scores contradict are left out (`train.classifier.doubted`), except
    those that somebody has `checked`, (texts,), bool.
    """
    parameters = PARAMETERS["finetuned" if tuned else "frozen"]
    inputs = _Inputs(texts, labels, groups, embeddings, tuned, seed, compute)
    first = boosting.held_out(
        inputs.columns(np.ones(len(texts), bool)),
        labels,
        inputs.parts,
        {**parameters, "seed": seed},
        inputs.log_odds,
        progress=True,
        compute=compute,
    )
    kept = doubted.kept(labels, calibrate(first.logits, labels), checked)
    rows = inputs.columns(kept)
    fitted = boosting.fit(rows, labels, groups, seed, inputs.log_odds, parameters, compute, kept)
    fitted = replace(fitted, views=_views(rows[:, : inputs.log_odds], labels, groups, embeddings))
    return inputs.features(kept), cascade.put_before(fitted, rows[:, 0], labels, kept)


def _views(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, embeddings: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return out-of-fold scores by what they look at, (texts,) each: see `train.audit`.

    Neighbours are those in the space of a frozen encoder: fine-tuning has fitted the wrong labels.
    """
    views = {name: calibrate(column, labels) for name, column in zip(VIEWS, logits.T, strict=False)}
    if embeddings is not None:
        views[NEIGHBOURS] = neighbours.vote(embeddings, labels, groups)
    return views


def columns(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
    compute: Compute = LOCAL,
) -> tuple[Features, np.ndarray]:
    """Return the features of any text, and their out-of-fold values for `texts`, (texts, columns).

    `labels`, 0 or 1, and `groups`, each within one fold, are (texts,). The head is the fine-tuned
    encoder's, or fitted on `embeddings`, (texts, dimension), of a frozen one, or absent.
    Embeddings of a fine-tuned encoder would leak the labels that it was trained on.

    Raises ClusterUnavailable, and ValueError if a label has fewer than two groups.
    """
    inputs = _Inputs(texts, labels, groups, embeddings, tuned, seed, compute)
    everything = np.ones(len(texts), bool)
    return inputs.features(everything), inputs.columns(everything)


@dataclass(frozen=True)
class _Inputs:
    """The arguments of `columns`, and what both fits need."""

    texts: Sequence[str]
    labels: np.ndarray
    groups: np.ndarray
    embeddings: np.ndarray | None
    tuned: FineTuned | None
    seed: int
    compute: Compute

    @property
    def log_odds(self) -> int:
        """The number of first columns that are log-odds."""
        return 1 if self.tuned is None and self.embeddings is None else 2

    @cached_property
    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(folds(self.labels, self.groups, SEED))

    @cached_property
    def _handcrafted(self) -> np.ndarray:
        return handcrafted_features(self.texts, self.compute)

    @cached_property
    def _counts(self) -> TextCounts:
        return TextCounts.of(self.texts)

    def features(self, kept: np.ndarray) -> Features:
        """Return the features of any text, learned from the labels that are `kept`, (texts,)."""
        linear = self.tuned.head if self.tuned else None
        if self.tuned is None and self.embeddings is not None:
            linear = head.fit(self.embeddings[kept], self.labels[kept])
        words = word_model.fit(self._counts, self.labels, self.seed, kept)
        return Features(words, linear, embedding_width=0)

    def columns(self, kept: np.ndarray) -> np.ndarray:
        """Return out-of-fold features of all texts, (texts, columns), learned in the same way."""
        parts = [(rest[kept[rest]], fold) for rest, fold in self.parts]
        logits = self.tuned.out_of_fold_logits if self.tuned else None
        if self.tuned is None and self.embeddings is not None:
            logits = head.out_of_fold(self.embeddings, self.labels, parts)
        lexical = word_model.out_of_fold(self._counts, self.labels, parts, self.seed, self.compute)
        return assemble(self._handcrafted, lexical, logits)
