"""Choice of messages to label next: uncertain ones and diverse ones, without near-duplicates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from feedsieve.text import plain

DIMENSIONS = 64  # of a text's vector
EXPLORED = 0.1  # share of a batch that is chosen for variety, whatever the scores
_TOKEN = r"\w+|[^\w\s]+"  # every text has at least one
_ITERATIONS = 30  # of k-means; it need not converge


def vectors(texts: Sequence[str], seed: int) -> NDArray[np.float64]:
    """Return unit vectors, close for texts with similar words, (texts, up to 64).

    Latent semantic analysis (Deerwester et al., 1990). Needs no encoder and no labels.
    """
    table = TfidfVectorizer(token_pattern=_TOKEN, sublinear_tf=True)
    words = table.fit_transform([plain(text) or "empty" for text in texts])
    size = min(DIMENSIONS, min(words.shape) - 1)
    if size < 1:
        return np.ones((len(texts), 1))
    reduce = make_pipeline(TruncatedSVD(size, n_iter=3, random_state=seed), Normalizer(copy=False))
    return reduce.fit_transform(words)


def doubt(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return the uncertainty of each score, (scores,): 0 at the threshold, negative elsewhere.

    It is the negative distance in log-odds, which distinguishes 0.01 from 0.0001.
    """
    edge = 1e-6
    return -np.abs(logit(np.clip(scores, edge, 1 - edge)) - logit(threshold))


def candidates(groups: NDArray[np.int64], is_taken: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first row of each group of near-duplicates without a taken row, in order.

    Both arguments are (rows,).
    """
    free = np.flatnonzero(~np.isin(groups, groups[is_taken]))
    return np.sort(free[np.unique(groups[free], return_index=True)[1]])


def choose(
    pool: NDArray[np.int64],
    texts: NDArray[np.float64],
    count: int,
    seed: int,
    doubts: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Return up to `count` rows of `pool` to label next, each once.

    `texts` are the vectors of all rows. Without `doubts`, (rows,), the rows are those nearest
    to the centres of k-means clusters. With `doubts`, nine tenths are the most uncertain rows
    (uncertainty sampling; Lewis and Gale, SIGIR 1994), and a tenth represents the rest, where a
    model may be confidently wrong.
    """
    count = min(count, len(pool))
    if doubts is None:
        return pool[representatives(texts[pool], count, seed)]
    explored = round(count * EXPLORED)
    ranked = pool[np.argsort(-doubts[pool], kind="stable")]
    doubtful, rest = np.split(ranked, [count - explored])
    return np.concatenate([doubtful, rest[representatives(texts[rest], explored, seed)]])


def representatives(rows: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` rows (or all, if there are fewer): one near each k-means centre.

    The row of the largest cluster comes first.
    """
    if count >= len(rows):
        return np.arange(len(rows))
    if count < 1:
        return np.zeros(0, np.int64)
    distinct = len(np.unique(rows, axis=0))
    means = KMeans(min(count, distinct), n_init=1, max_iter=_ITERATIONS, random_state=seed)
    distances = means.fit_transform(rows)
    sizes = np.bincount(means.labels_, minlength=distances.shape[1])
    chosen = [
        int(np.where(means.labels_ == cluster, distances[:, cluster], np.inf).argmin())
        for cluster in np.argsort(-sizes, kind="stable")
    ]
    others = np.setdiff1d(np.arange(len(rows)), chosen)  # equal rows share a cluster
    return np.concatenate([chosen, others[: count - len(chosen)]]).astype(np.int64)
