"""Stacking: LightGBM on the outputs of word model and head, and on handcrafted features.

LightGBM is fitted on out-of-fold logits of the models below it.
"""

from collections.abc import Sequence

import numpy as np

from feedsieve.scoring.features import Features
from train.classifier import boosting, cascade, head, word_model
from train.classifier.boosting import Fitted
from train.classifier.handcrafted import handcrafted_features
from train.classifier.parameters import PARAMETERS
from train.compute.base import LOCAL, Compute
from train.data.folds import folds
from train.encoder.finetune import FineTuned


def fit(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
    compute: Compute = LOCAL,
) -> tuple[Features, Fitted]:
    """Return the features of any text, and LightGBM fitted on them; see `columns`."""
    features, rows = columns(texts, labels, groups, embeddings, tuned, seed, compute)
    parameters = PARAMETERS["finetuned" if tuned else "frozen"]
    fitted = boosting.fit(rows, labels, groups, seed, features.log_odds, parameters, compute)
    return features, cascade.put_before(fitted, rows[:, 0], labels)


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
    parts = list(folds(labels, groups, seed))
    linear, logits = None, None
    if tuned:
        linear, logits = tuned.head, tuned.out_of_fold_logits
    elif embeddings is not None:
        linear = head.fit(embeddings, labels)
        logits = head.out_of_fold(embeddings, labels, parts)
    features = Features(word_model.fit(texts, labels, seed), linear, embedding_width=0)
    rows = features.assemble(
        handcrafted_features(texts, compute),
        np.empty((len(texts), 0)),
        word_model.out_of_fold(texts, labels, parts, seed, compute),
        logits,
    )
    return features, rows
