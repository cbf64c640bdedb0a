"""Stacking: LightGBM on the outputs of word model and head, and on handcrafted features.

LightGBM is fitted on out-of-fold logits of the models below it. All of it, except a fine-tuned
head, is fitted twice: the second time without the labels that the first contradicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.features import Features
from train.classifier import boosting, cascade, doubted, head, neighbours, word_model
from train.classifier.boosting import Fitted
from train.classifier.calibration import fit_platt
from train.classifier.handcrafted import handcrafted_features
from train.classifier.parameters import PARAMETERS
from train.classifier.word_model import TextCounts
from train.compute.base import LOCAL, Compute
from train.data.folds import folds
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
    columns = _Columns(texts, labels, groups, embeddings, tuned, seed, compute)
    features, rows = columns.of(np.ones(len(texts), bool))
    first = boosting.held_out(
        rows,
        labels,
        list(folds(labels, groups, seed)),
        {**parameters, "seed": seed},
        features.log_odds,
        progress=True,
        compute=compute,
    )
    scores = Calibration(*fit_platt(first.logits, labels)).apply(first.logits)
    believed = doubted.believed(labels, scores, checked)
    features, rows = columns.of(believed)
    fitted = boosting.fit(
        rows, labels, groups, seed, features.log_odds, parameters, compute, believed
    )
    fitted = replace(fitted, views=_views(rows[:, : features.log_odds], labels, groups, embeddings))
    return features, cascade.put_before(fitted, rows[:, 0], labels, believed)


def _views(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, embeddings: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return out-of-fold scores by what they look at, (texts,) each: see `train.audit`.

    Neighbours are those in the space of a frozen encoder: fine-tuning has fitted the wrong labels.
    """
    views = {
        name: Calibration(*fit_platt(column, labels)).apply(column)
        for name, column in zip(VIEWS, logits.T, strict=False)
    }
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
    everything = np.ones(len(texts), bool)
    return _Columns(texts, labels, groups, embeddings, tuned, seed, compute).of(everything)


@dataclass(frozen=True)
class _Columns:
    """The arguments of `columns`."""

    texts: Sequence[str]
    labels: np.ndarray
    groups: np.ndarray
    embeddings: np.ndarray | None
    tuned: FineTuned | None
    seed: int
    compute: Compute

    @cached_property
    def handcrafted(self) -> np.ndarray:
        return handcrafted_features(self.texts, self.compute)

    @cached_property
    def counts(self) -> TextCounts:
        return TextCounts.of(self.texts)

    def of(self, believed: np.ndarray) -> tuple[Features, np.ndarray]:
        """Return what `columns` returns; only `believed` labels, (texts,), bool, are learned."""
        labels = self.labels
        parts = [
            (rest[believed[rest]], fold) for rest, fold in folds(labels, self.groups, self.seed)
        ]
        linear, logits = None, None
        if self.tuned:
            linear, logits = self.tuned.head, self.tuned.out_of_fold_logits
        elif self.embeddings is not None:
            linear = head.fit(self.embeddings[believed], labels[believed])
            logits = head.out_of_fold(self.embeddings, labels, parts)
        words = word_model.fit(self.counts, labels, self.seed, believed)
        features = Features(words, linear, embedding_width=0)
        rows = features.assemble(
            self.handcrafted,
            np.empty((len(labels), 0)),
            word_model.out_of_fold(self.counts, labels, parts, self.seed, self.compute),
            logits,
        )
        return features, rows
