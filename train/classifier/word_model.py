"""The word model: a linear model over character n-grams of a text and of its first words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.svm import LinearSVC

from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.word_model import WordModel, opening
from feedsieve.text import plain
from train.compute.base import LOCAL, Compute

NGRAMS = (2, 5)  # shortest and longest, in characters
MIN_MESSAGES = 3  # that an n-gram occurs in; rarer ones are names, numbers and typing errors


@dataclass(frozen=True)
class Counts:
    """N-grams by text: texts are cut once, for all folds."""

    matrix: csr_matrix  # (texts, n-grams)
    pieces: np.ndarray  # (n-grams,)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Counts":
        """Count the n-grams of at least one plain text, but for those too rare for any fold."""
        vectorizer = CountVectorizer(
            analyzer="char_wb",
            ngram_range=NGRAMS,
            min_df=min(MIN_MESSAGES, len(texts)),
            dtype=np.float64,
        )
        try:
            matrix = vectorizer.fit_transform(texts)
        except ValueError:  # no n-gram occurs in so many
            matrix = vectorizer.set_params(min_df=1).fit_transform(texts)
        return cls(matrix.tocsr(), vectorizer.get_feature_names_out())


@dataclass(frozen=True)
class TextCounts:
    """The counts of texts and of their first words."""

    text: Counts
    opening: Counts

    @classmethod
    def of(cls, texts: Sequence[str]) -> "TextCounts":
        plain_texts = [plain(text) for text in texts]
        return cls(Counts.of(plain_texts), Counts.of([opening(text) for text in plain_texts]))


class _Vectors:
    """TF-IDF vectors of the n-grams that some texts have in common."""

    def __init__(self, counts: Counts, rows: np.ndarray) -> None:
        """Choose n-grams and weigh them by the texts in `rows`."""
        matrix = counts.matrix[rows]
        messages = matrix.getnnz(axis=0)
        self.columns = np.flatnonzero(messages >= min(MIN_MESSAGES, messages.max()))
        self._counts = counts
        self._transformer = TfidfTransformer(sublinear_tf=True).fit(matrix[:, self.columns])

    def of(self, rows: np.ndarray) -> csr_matrix:
        """Return the vectors of the texts in `rows`, (texts, n-grams)."""
        return self._transformer.transform(self._counts.matrix[rows][:, self.columns])

    def lexicon(self, weights: np.ndarray, intercept: float) -> Lexicon:
        pieces = self._counts.pieces[self.columns].tolist()
        return Lexicon(pieces, self._transformer.idf_, weights, intercept)


class _Fitted:
    """A word model in scikit-learn's form."""

    def __init__(self, counts: TextCounts, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Fit on the texts in `rows` of `counts`, and their `labels`, (texts,)."""
        self.parts = [_Vectors(each, rows) for each in (counts.text, counts.opening)]
        self.model = LinearSVC(class_weight="balanced", random_state=seed)
        self.model.fit(self._vectors(rows), labels[rows])

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the texts in `rows`, (texts,)."""
        logits: np.ndarray = self.model.decision_function(self._vectors(rows))
        return logits

    def _vectors(self, rows: np.ndarray) -> csr_matrix:
        return hstack([part.of(rows) for part in self.parts]).tocsr()

    def exported(self) -> WordModel:
        text, first = self.parts
        size = len(text.columns)
        weights = self.model.coef_[0]
        return WordModel(
            text.lexicon(weights[:size], self.model.intercept_[0]),
            first.lexicon(weights[size:], 0.0),
        )


def fit(
    counts: TextCounts, labels: np.ndarray, seed: int, kept: np.ndarray | None = None
) -> WordModel:
    """Return a word model fitted on texts and their `labels`, 0 or 1, (texts,).

    Only labels that are `kept`, (texts,), bool, are learned.
    """
    rows = np.arange(len(labels)) if kept is None else np.flatnonzero(kept)
    return _Fitted(counts, rows, labels, seed).exported()


def out_of_fold(
    counts: TextCounts,
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    compute: Compute = LOCAL,
) -> np.ndarray:
    """Return out-of-fold logits, (texts,).

    `parts` are pairs of row numbers, (rest, fold), whose folds hold each row once.
    Raises ClusterUnavailable.
    """
    logits = np.empty(len(labels))
    results = compute.map(_score_fold, parts, (counts, labels, seed))
    for (_rest, fold), fold_logits in zip(parts, results, strict=True):
        logits[fold] = fold_logits
    return logits


def _score_fold(
    part: tuple[np.ndarray, np.ndarray], counts: TextCounts, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Return the logits of the held-out fold, (rows of the fold,)."""
    rest, fold = part
    return _Fitted(counts, rest, labels, seed).logits(fold)
