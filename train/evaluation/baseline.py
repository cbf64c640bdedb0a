"""The linear model over words and characters that a model has to beat."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.svm import LinearSVC
from tqdm import tqdm

from feedsieve.text import plain


def linear_svc(seed: int) -> Pipeline:
    """Return the model, not fitted. Its texts are `plain`."""
    return make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TfidfVectorizer(analyzer="char", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
        ),
        LinearSVC(class_weight="balanced", random_state=seed),
    )


def out_of_fold(texts: list[str], labels: np.ndarray, folds: np.ndarray, seed: int) -> np.ndarray:
    """Return the decision function of each text by the model of the other folds; positive: >= 0.

    `labels`, 0 or 1, and numbers of `folds` are (texts,).
    Raises ValueError if texts are so few or alike that there are no terms to learn from.
    """
    plain_texts = np.array([plain(text) for text in texts], dtype=object)
    values = np.empty(len(texts))
    for fold in tqdm(np.unique(folds), "LinearSVC", unit="fold"):
        held_out = folds == fold
        model = linear_svc(seed).fit(plain_texts[~held_out], labels[~held_out])
        values[held_out] = model.decision_function(plain_texts[held_out])
    return values
