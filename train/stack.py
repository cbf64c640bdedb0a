"""The classifier as a whole: the lexicon, the encoder's verdict, and LightGBM that weighs them.

What is fitted on labels speaks to LightGBM only of messages whose labels it had not seen.
"""

from collections.abc import Sequence

import numpy as np

from feedsieve.features import Features
from feedsieve.text import plain
from feedsieve.traits import traits
from train import classifier, lexical
from train.classifier import Fitted
from train.finetune import FineTuned


def fit(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
) -> tuple[Features, Fitted]:
    """Return features for any text, and LightGBM fitted on what `columns` returns.

    Raises ValueError if a label is in fewer than two groups.
    """
    features, rows = columns(texts, labels, groups, embeddings, tuned, seed)
    parameters = classifier.PARAMETERS["finetuned" if tuned else "frozen"]
    fitted = classifier.fit(rows, labels, groups, seed, features.log_odds, parameters)
    return features, fitted


def columns(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
) -> tuple[Features, np.ndarray]:
    """Return features for any text, and those of `texts` to learn from, (texts, columns).

    `labels`, 0 or 1, and `groups`, which stay in one fold, are (texts,). The classifier goes by
    the head of a fine-tuned encoder, or else by `embeddings`, (texts, dimension), of a frozen one:
    the embeddings of a fine-tuned encoder know the labels of the texts that it was tuned on.
    Raises ValueError if a label is in fewer than two groups.
    """
    if tuned or embeddings is None:
        embeddings = np.empty((len(texts), 0))
    features = Features(
        lexical.fit(texts, labels, seed), tuned.head if tuned else None, embeddings.shape[1]
    )
    folds = list(classifier.folds(labels, groups, seed))
    rows = features.assemble(
        traits([plain(text) for text in texts]),
        embeddings,
        lexical.out_of_fold(texts, labels, folds, seed),
        tuned.verdicts if tuned else None,
    )
    return features, rows
