"""The classifier as a whole: the lexicon, a head on the encoder, and LightGBM that weighs them.

What is fitted on labels speaks to LightGBM only of messages whose labels it had not seen.
"""

from collections.abc import Sequence

import numpy as np

from feedsieve.features import Features
from train import cascade as cascades
from train import classifier, lexical
from train import head as heads
from train.classifier import Fitted
from train.compute import HERE, Compute
from train.embedding import traits_of
from train.finetune import FineTuned


def fit(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
    compute: Compute = HERE,
) -> tuple[Features, Fitted]:
    """Return features for any text, and LightGBM fitted on what `columns` returns.

    Raises NoEngine, and ValueError if a label is in fewer than two groups.
    """
    features, rows = columns(texts, labels, groups, embeddings, tuned, seed, compute)
    parameters = classifier.PARAMETERS["finetuned" if tuned else "frozen"]
    fitted = classifier.fit(rows, labels, groups, seed, features.log_odds, parameters, compute)
    return features, cascades.put_before(fitted, rows[:, 0], labels)


def columns(
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    embeddings: np.ndarray | None,
    tuned: FineTuned | None,
    seed: int,
    compute: Compute = HERE,
) -> tuple[Features, np.ndarray]:
    """Return features for any text, and those of `texts` to learn from, (texts, columns).

    `labels`, 0 or 1, and `groups`, which stay in one fold, are (texts,). The head is that of a
    fine-tuned encoder, or else it is fitted on `embeddings`, (texts, dimension), of a frozen one:
    the embeddings of a fine-tuned encoder know the labels of the texts that it was tuned on.
    Without either there is no head.
    Raises NoEngine, and ValueError if a label is in fewer than two groups.
    """
    folds = list(classifier.folds(labels, groups, seed))
    head, logits = None, None
    if tuned:
        head, logits = tuned.head, tuned.verdicts
    elif embeddings is not None:
        head = heads.fit(embeddings, labels)
        logits = heads.out_of_fold(embeddings, labels, folds)
    features = Features(lexical.fit(texts, labels, seed), head, embedding_width=0)
    rows = features.assemble(
        traits_of(texts, compute),
        np.empty((len(texts), 0)),
        lexical.out_of_fold(texts, labels, folds, seed, compute),
        logits,
    )
    return features, rows
