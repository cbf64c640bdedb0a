"""Handcrafted features of many texts, computed in parallel."""

from collections.abc import Sequence

import numpy as np

from feedsieve.scoring import handcrafted
from feedsieve.text import plain
from train.compute.base import LOCAL, Compute

PART = 1000  # texts; some tenths of a second


def handcrafted_features(texts: Sequence[str], compute: Compute = LOCAL) -> np.ndarray:
    """Return the handcrafted features of at least one text, (texts, features).

    Raises ClusterUnavailable.
    """
    parts = [list(texts[start : start + PART]) for start in range(0, len(texts), PART)]
    return np.concatenate(compute.map(_features, parts))


def _features(texts: Sequence[str]) -> np.ndarray:
    return handcrafted.handcrafted_features([plain(text) for text in texts])
