"""The word model: a linear model over character n-grams."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from feedsieve.scoring.lexicon import Lexicon
from feedsieve.text import plain
from train.compute.base import LOCAL, Compute

NGRAMS = (2, 5)  # shortest and longest, in characters
MIN_MESSAGES = 3  # that an n-gram occurs in; rarer ones are names, numbers and typing errors


def fit(texts: Sequence[str], labels: np.ndarray, seed: int) -> Lexicon:
    """Return a word model fitted on `texts` and their `labels`, 0 or 1, (texts,)."""
    return _fit([plain(text) for text in texts], labels, seed)


def _fit(plain_texts: Sequence[str], labels: np.ndarray, seed: int) -> Lexicon:
    vectorizer = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=NGRAMS,
        min_df=min(MIN_MESSAGES, len(plain_texts)),
        sublinear_tf=True,
    )
    vectors = vectorizer.fit_transform(plain_texts)
    model = LinearSVC(class_weight="balanced", random_state=seed).fit(vectors, labels)
    return Lexicon(
        vectorizer.get_feature_names_out().tolist(),
        vectorizer.idf_,
        model.coef_[0],
        model.intercept_[0],
    )


def out_of_fold(
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    compute: Compute = LOCAL,
) -> np.ndarray:
    """Return out-of-fold logits, (texts,).

    `parts` are pairs of row numbers, (rest, fold), whose folds hold each row once.
    Raises ClusterUnavailable.
    """
    plain_texts = [plain(text) for text in texts]
    logits = np.empty(len(texts))
    results = compute.map(_score_fold, parts, (plain_texts, labels, seed))
    for (_rest, fold), fold_logits in zip(parts, results, strict=True):
        logits[fold] = fold_logits
    return logits


def _score_fold(
    part: tuple[np.ndarray, np.ndarray], plain_texts: Sequence[str], labels: np.ndarray, seed: int
) -> np.ndarray:
    """Return the logits of the held-out fold, (rows of the fold,)."""
    rest, fold = part
    model = _fit([plain_texts[row] for row in rest], labels[rest], seed)
    return model.score([plain_texts[row] for row in fold])
