"""The labels that models are judged by."""

import numpy as np
import pandas as pd

from train.data.validation import ADJUDICATED

GIVEN = "label"


def judges(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return labels, 0 or 1, (messages,), under the names of their columns.

    They are the labels as they are, and the adjudicated ones if the data has them. `frame` is that
    of `read_labeled`.
    """
    return {name: frame[name].to_numpy() for name in (GIVEN, ADJUDICATED) if name in frame}


def suffix(judge: str) -> str:
    """Return what stands after the name of a figure by these labels."""
    return "" if judge == GIVEN else f"_{judge}"
