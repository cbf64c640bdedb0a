"""The messages that a model gets wrong, for a person to read."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def mistakes(frame: pd.DataFrame, scores: ArrayLike, threshold: float) -> pd.DataFrame:
    """Return `msg_id`, `label`, `score` and `msg` of wrong decisions, the worst first.

    `frame` has `msg_id`, `msg` and `label` (0 or 1); `scores`, 0 to 1, are (rows,). The worst
    mistake is the one whose score is farthest from its label.
    """
    scored = frame.assign(score=np.asarray(scores, dtype=np.float64))
    wrong = scored[(scored["score"] >= threshold) != (scored["label"] == 1)]
    order = np.argsort(-np.abs(wrong["score"] - wrong["label"]), kind="stable")
    return wrong.iloc[order][["msg_id", "label", "score", "msg"]]
