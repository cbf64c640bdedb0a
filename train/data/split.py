"""Split labelled messages into a training and a test part, and fingerprint them."""

import json
import logging
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from train.data.folds import folds
from train.data.near_duplicates import near_duplicate_groups
from train.data.validation import checked

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Labelled messages in a training and a test part.

    Both frames have the columns of the frame that was split, and share no message. Everything that
    is chosen, thresholds for example, is chosen on folds of the training part.
    """

    train: pd.DataFrame
    test: pd.DataFrame


def split(frame: pd.DataFrame, seed: int, test_share: float = 0.2, progress: bool = True) -> Split:
    """Return `frame` in two parts with about the same share of positives.

    A `subset` column decides which rows are for testing. Without one, about `test_share` of the
    rows are, above 0 and at most 0.5, to the nearest 1/k. Near-duplicates stay in one part, except
    where `subset` separates them: a warning counts these. The result depends on the rows and
    `seed`, not on the order of the rows; each part keeps the order of `frame`.
    Raises `ValueError` for a share out of range, and for too few messages that are no
    near-duplicates.
    """
    if not 0 < test_share <= 0.5:
        raise ValueError(f"a share must be above 0 and at most 0.5, not {test_share}")
    frame = frame.reset_index(drop=True)
    order = frame["msg_id"].argsort(kind="stable").to_numpy()
    groups = np.empty(len(frame), dtype=np.int64)
    groups[order] = near_duplicate_groups(frame["msg"].iloc[order].tolist(), progress)
    if "subset" in frame:
        is_test = (frame["subset"] == "test").to_numpy()
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        if copies := int(np.isin(groups[test], groups[train]).sum()):
            _log.warning(
                "%d of %d test messages have a near-duplicate among the training messages,"
                " so the test figures are too good",
                copies,
                len(test),
            )
    else:
        train, test = _divide(order, frame["label"].to_numpy(), groups, test_share, seed)
    return Split(*(frame.iloc[np.sort(rows)].reset_index(drop=True) for rows in (train, test)))


def data_fingerprint(frame: pd.DataFrame) -> str:
    """Return 32 hexadecimal digits for ids, texts, labels and which of these are checked.

    They do not depend on the order of the rows.
    """
    rows = zip(frame["msg_id"], frame["msg"], frame["label"], checked(frame), strict=True)
    digests = sorted(
        blake2b(
            json.dumps(
                [str(identifier), text, int(label), *(["checked"] if is_checked else [])]
            ).encode(),
            digest_size=16,
        ).digest()
        for identifier, text, label, is_checked in rows
    )
    return blake2b(b"".join(digests), digest_size=16).hexdigest()


def _divide(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    share: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `rows` in a larger part and one of about `share`, without breaking up groups.

    One large group can fill a fold, so this takes the fold whose shares of rows and of positives
    are nearest to `share`.
    """
    labels, groups = labels[rows], groups[rows]

    def distance(parts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[bool, float]:
        _larger, smaller = parts
        one_label = min(len(np.unique(labels[part])) for part in parts) < 2
        positives = labels[smaller].sum() / labels.sum()
        return one_label, abs(len(smaller) / len(rows) - share) + abs(positives - share)

    larger, smaller = min(folds(labels, groups, seed, round(1 / share)), key=distance)
    if distance((larger, smaller))[0]:
        raise ValueError("too few messages to split: near-duplicates keep a label in one part")
    return rows[larger], rows[smaller]
