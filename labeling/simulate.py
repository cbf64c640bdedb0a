"""`python -m labeling.simulate`: how many labels each way of choosing messages needs.

Known labels stand in for the person, and a model that is fitted in a second for the real one: a
linear one of words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import f1_score
from tqdm import tqdm

from labeling.choose import candidates, choose, doubt
from train.classifier import folds

TIME = "in order of time"
TIME_ONCE = "in order of time, near-duplicates once"
VARIETY = "by variety alone"
NEXT = "labeling.next"
WAYS = (TIME, TIME_ONCE, VARIETY, NEXT)
TABLE_BEGIN, TABLE_END = "<!-- simulate -->\n", "<!-- /simulate -->\n"
_THRESHOLD = 0.5  # of a model that weighs both labels alike


@dataclass(frozen=True)
class Corpus:
    """Labelled messages in order of time, each as the ways of choosing see it."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]  # of near-duplicates
    words: csr_matrix  # for the model
    texts: NDArray[np.float64]  # for telling messages apart


def simulate(
    corpus: Corpus, sizes: Sequence[int], batch: int, seeds: Sequence[int], parts: int
) -> dict[str, NDArray[np.float64]]:
    """Return the F1 on held-out messages by way, each (seeds × parts, sizes).

    For each seed the messages are parted in `parts` folds, near-duplicates together. Each fold is
    held out in turn, and the others are labelled `batch` after `batch`: a model of the labels so
    far says what it doubts, and is judged at each of `sizes`.
    """
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    runs = [
        (seed, rest, fold)
        for seed in seeds
        for rest, fold in list(folds(corpus.labels, corpus.groups, seed))[:parts]
    ]
    for seed, rest, fold in tqdm(runs, "label", unit=" folds"):
        for way in WAYS:
            found[way].append([0.0] * len(sizes))
            for labelled in _grow(corpus, np.sort(rest), way, batch, max(sizes), seed):
                if len(labelled) in sizes:
                    model = _fit(corpus, labelled)
                    said = model.predict_proba(corpus.words[fold])[:, 1] >= _THRESHOLD
                    score = f1_score(corpus.labels[fold], said, zero_division=0.0)
                    found[way][-1][sizes.index(len(labelled))] = float(score)
    return {way: np.array(rows) for way, rows in found.items()}


def _grow(
    corpus: Corpus, rest: NDArray[np.int64], way: str, batch: int, most: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows that are labelled after each batch."""
    labelled = np.zeros(0, np.int64)
    while len(labelled) < most:
        if way == TIME:
            pool = np.setdiff1d(rest, labelled)
            chosen = pool[:batch]
        else:
            is_taken = np.ones(len(corpus.labels), bool)
            is_taken[rest] = False
            is_taken[labelled] = True
            pool = candidates(corpus.groups, is_taken)
            if way == TIME_ONCE or len(pool) <= batch:
                chosen = pool[:batch]
            elif way == VARIETY or len(np.unique(corpus.labels[labelled])) < 2:
                chosen = choose(pool, corpus.texts, batch, seed)
            else:
                scores = _fit(corpus, labelled).predict_proba(corpus.words)[:, 1]
                doubts = doubt(scores, _THRESHOLD)
                chosen = choose(pool, corpus.texts, batch, seed, doubts)
        if not len(chosen):
            return
        labelled = np.concatenate([labelled, chosen])
        yield labelled
