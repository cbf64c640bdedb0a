"""Strategies and formulas that tests of metrics and of calibration share."""

import numpy as np
from hypothesis import strategies as st

SCORES = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 5e-324, np.nextafter(1, 0)])
)
LABELLED = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=40).map(
    lambda pairs: tuple(np.array(column) for column in zip(*pairs, strict=True))
)


def f1(labels, scores, threshold) -> float:
    shown = np.asarray(scores) >= threshold
    hits = int((shown & (np.asarray(labels) == 1)).sum())
    return 2 * hits / (int(shown.sum()) + int(np.sum(labels)))
