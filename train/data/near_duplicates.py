"""Group near-duplicate messages, so that copies never end up in both training and test data."""

import re
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from feedsieve.text import normalise

JACCARD = 0.7
_PERMUTATIONS = 128
_SHINGLE = 5  # characters
_DIGITS = re.compile(r"\d+")


def near_duplicate_groups(texts: Sequence[str], progress: bool = True) -> NDArray[np.int64]:
    """Return the group number of each text, (texts,), counted from 0 by first appearance.

    Two texts are near-duplicates if the Jaccard similarity of their 5-character shingles is at
    least 0.7 once they are `masked`: an advertisement posted again with another price is a copy.
    Near-duplicates of near-duplicates share a group. A text shorter than a shingle is grouped with
    its equals only.

    Candidate pairs come from MinHash with locality-sensitive hashing (Broder, 1997; Leskovec et
    al., Mining of Massive Datasets, chapter 3) and are checked exactly. `progress` shows a bar.
    """
    keys = [masked(text) for text in texts]
    distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    pairs = list(_similar_pairs(list(distinct), progress))
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (left, right)), shape=(len(distinct),) * 2)
    components = connected_components(graph, directed=False)[1] if distinct else np.zeros(0, int)
    groups: dict[int, int] = {}
    return np.array(
        [groups.setdefault(int(components[distinct[key]]), len(groups)) for key in keys],
        dtype=np.int64,
    )


def masked(text: str) -> str:
    """Return `text` normalised, in lower case, and with 0 in place of every number."""
    return _DIGITS.sub("0", normalise(text).lower())


def _shingles(text: str) -> set[int]:
    """Return a 32-bit hash of each run of five characters, or of a shorter text."""
    last = max(len(text) - _SHINGLE, 0)
    return {crc32(text[start : start + _SHINGLE].encode()) for start in range(last + 1)}


def _similar_pairs(texts: list[str], progress: bool) -> Iterator[tuple[int, int]]:
    """Yield each pair of similar texts once, as numbers `(later, earlier)`."""
    index = MinHashLSH(threshold=JACCARD, num_perm=_PERMUTATIONS)
    empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
    seen: list[set[int]] = []
    # Without `disable`, which would override TQDM_DISABLE.
    bar = tqdm(texts, "near-duplicates", unit=" messages") if progress else texts
    for number, text in enumerate(bar):
        shingles = _shingles(text)
        minhash = empty.copy()
        minhash.update_batch(shingles)
        for candidate in index.query(minhash):
            common = len(shingles & seen[candidate])
            if common >= JACCARD * (len(shingles) + len(seen[candidate]) - common):
                yield number, candidate
        index.insert(number, minhash, check_duplication=False)
        seen.append(shingles)
