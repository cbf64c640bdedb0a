"""Labelled messages with wrong labels, for tests of the audit."""

import numpy as np
import pandas as pd
from labelled_files import sentences

from train.data.near_duplicates import near_duplicate_groups
from train.evaluation.label_audit import SCORE, audit

OFFER = "A bright flat by the old harbour, furnished, from {} a month, for a year or longer"


def labelled(count: int = 60, flipped: tuple[int, ...] = ()) -> tuple[pd.DataFrame, np.ndarray]:
    """Return messages of which every third is positive, and scores that agree with that.

    Scores are less certain for every fifth. Labels in `flipped` are reversed, their scores are not.
    No two messages are near-duplicates.
    """
    truth = np.arange(count) % 3 == 0
    labels = truth.astype(np.int64)
    labels[list(flipped)] ^= 1
    frame = pd.DataFrame(
        {
            "msg_id": [f"m{number}" for number in range(count)],
            "msg": sentences(count),
            "label": labels,
        }
    )
    doubt = np.where(np.arange(count) % 5 == 0, 0.3, 0.05)
    doubt += np.random.default_rng(0).uniform(0, 0.02, count)
    return frame, np.where(truth, 1 - doubt, doubt)


def with_copies(*copies: tuple[str, int, float]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return clean messages, followed by `copies` (text, label, score) named c0, c1, …"""
    frame, scores = labelled()
    texts, labels, own = zip(*copies, strict=True)
    names = [f"c{number}" for number in range(len(copies))]
    more = pd.DataFrame({"msg_id": names, "msg": texts, "label": labels})
    return pd.concat([frame, more], ignore_index=True), np.concatenate([scores, own])


def audited(frame: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    groups = near_duplicate_groups(frame["msg"].tolist(), progress=False)
    return audit(frame, {SCORE: scores}, groups).table
