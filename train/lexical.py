"""Fit the lexicon: a linear model of the pieces of words, with scores that no label leaks into."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from feedsieve.lexicon import Lexicon
from feedsieve.text import plain
from train.compute import HERE, Compute

SHORTEST, LONGEST = 2, 5  # characters in a piece
FEWEST_MESSAGES = 3  # that a piece occurs in; rarer ones are names, numbers and slips


def fit(texts: Sequence[str], labels: np.ndarray, seed: int) -> Lexicon:
    """Return a lexicon fitted on `texts` and their `labels`, 0 or 1, (texts,)."""
    return _fit([plain(text) for text in texts], labels, seed)


def _fit(read: Sequence[str], labels: np.ndarray, seed: int) -> Lexicon:
    vectorizer = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(SHORTEST, LONGEST),
        min_df=min(FEWEST_MESSAGES, len(read)),
        sublinear_tf=True,
    )
    vectors = vectorizer.fit_transform(read)
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
    compute: Compute = HERE,
) -> np.ndarray:
    """Return for each text the score of a lexicon that did not see it, (texts,).

    `parts` are pairs of row numbers, (rest, fold), whose folds hold every row once.
    Raises NoEngine.
    """
    read = [plain(text) for text in texts]
    scores = np.empty(len(read))
    found = compute.map(_score_fold, parts, (read, labels, seed))
    for (_rest, fold), values in zip(parts, found, strict=True):
        scores[fold] = values
    return scores


def _score_fold(
    part: tuple[np.ndarray, np.ndarray], read: Sequence[str], labels: np.ndarray, seed: int
) -> np.ndarray:
    """Return the scores of one fold, (rows of the fold,)."""
    rest, fold = part
    lexicon = _fit([read[row] for row in rest], labels[rest], seed)
    return lexicon.score([read[row] for row in fold])
