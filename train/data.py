"""Labelled messages: read from a file, checked, split for training without leaks, fingerprinted."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from feedsieve.text import storable
from train import label_studio
from train.duplicates import near_duplicate_groups
from train.validation import PLACE, InvalidData, quote, some, validate

__all__ = [
    "InvalidData",
    "Split",
    "data_fingerprint",
    "near_duplicate_groups",
    "read_csv",
    "read_labeled",
    "read_text",
    "split",
]

_log = logging.getLogger(__name__)
_COLUMNS = ["msg_id", "msg", "label", "subset", "labeled_at"]


@dataclass(frozen=True)
class Split:
    """Labelled messages in two parts: to learn from, and to be judged on.

    The frames have the columns of the frame that was split, and share no message. What has to be
    chosen is chosen by folds of the first part (`train.classifier.folds`).
    """

    train: pd.DataFrame
    test: pd.DataFrame


def read_labeled(path: Path | str) -> pd.DataFrame:
    """Return labelled messages: `msg_id`, `msg` (text), `label` (0 or 1), and perhaps more.

    Reads CSV with those columns, and Label Studio's CSV, JSON and JSON-MIN exports. A label is
    0, 1, negative or positive in any case. `subset`, train or test, is kept if it is given, and so
    is `labeled_at`, when the label was given: a time in UTC, NaT where the file does not say.
    Raises `InvalidData`, naming every problem and where it is.
    """
    path = Path(path)
    columns, rows, problems = read_rows(path)
    present = {name for row in rows for name in row} if rows else set(columns)
    kept = [name for name in _COLUMNS if name in present]
    cells = [[storable(row[name]) if name in row else "" for name in kept] for row in rows]
    frame = pd.DataFrame(cells, columns=kept, dtype=str)
    frame[PLACE] = pd.Series([row[PLACE] for row in rows], dtype=str)
    return validate(frame, path, problems)


def read_rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]], list[str]]:
    """Return the columns, the rows as text, and the problems of a file that `read_labeled` reads.

    Nothing is checked but that it is such a file. Raises `InvalidData`.
    """
    text = read_text(path)
    problems: list[str] = []
    columns: Sequence[str] = []
    try:
        if text.lstrip().startswith(("[", "{")):
            rows = label_studio.from_json(json.loads(text))
        else:
            columns, rows, problems = read_csv(text)
            if label_studio.is_flat_export(columns):
                rows = label_studio.from_flat(rows)
    except (ValueError, RecursionError, csv.Error) as error:
        raise InvalidData(path, [*problems, str(error)]) from error
    return columns, rows, problems


def split(frame: pd.DataFrame, seed: int, test_share: float = 0.2, progress: bool = True) -> Split:
    """Return `frame` in two parts, each with both labels in about the same proportion.

    A `subset` column says what the test part is; else it is about `test_share` of the rows, above 0
    and at most 0.5, met to the nearest 1/k. Near-duplicates stay on one side, but for those that
    `subset` has parted: these are counted in a warning. The same rows in any order and the same
    `seed` give the same parts, each in the order of `frame`.
    Raises `ValueError` for a bad share or too few messages that are not copies of one another.
    """
    if not 0 < test_share <= 0.5:
        raise ValueError(f"a share must be above 0 and at most 0.5, not {test_share}")
    frame = frame.reset_index(drop=True)
    order = frame["msg_id"].argsort(kind="stable").to_numpy()
    labels = frame["label"].to_numpy()
    groups = np.empty(len(frame), dtype=np.int64)
    groups[order] = near_duplicate_groups(frame["msg"].iloc[order].tolist(), progress)
    if "subset" in frame:
        is_test = (frame["subset"] == "test").to_numpy()
        train, test = order[~is_test[order]], order[is_test[order]]
        copied = int(np.isin(groups[test], groups[train]).sum())
        if copied:
            _log.warning(
                "%d of %d test messages have a near-duplicate among the training messages, "
                "so the test flatters the model",
                copied,
                len(test),
            )
    else:
        train, test = _part(order, labels, groups, test_share, seed)
    return Split(*(frame.iloc[np.sort(rows)].reset_index(drop=True) for rows in (train, test)))


def data_fingerprint(frame: pd.DataFrame) -> str:
    """Return 32 hexadecimal digits that change with any id, text or label, not with the order."""
    rows = zip(frame["msg_id"], frame["msg"], frame["label"], strict=True)
    digests = sorted(
        blake2b(json.dumps([str(identifier), text, int(label)]).encode(), digest_size=16).digest()
        for identifier, text, label in rows
    )
    return blake2b(b"".join(digests), digest_size=16).hexdigest()


def _part(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    share: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `rows` in two: the larger part and about `share` of them, groups kept whole.

    Of the folds the one is taken that comes nearest to the share of rows and of positives, since
    one large group can fill a fold by itself.
    """
    labels, groups = labels[rows], groups[rows]
    of_each_label = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(of_each_label) < 2:
        raise ValueError(
            "too few messages to split: apart from near-duplicates there are "
            f"{of_each_label[1]} positive and {of_each_label[0]} negative, 2 of each are needed"
        )
    count = max(2, min(round(1 / share), *of_each_label))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)

    def distance(fold: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[bool, float]:
        _larger, smaller = fold
        one_sided = min(len(np.unique(labels[part])) for part in fold) < 2
        positives = labels[smaller].sum() / labels.sum()
        return one_sided, abs(len(smaller) / len(rows) - share) + abs(positives - share)

    larger, smaller = min(folds.split(rows, labels, groups), key=distance)
    if distance((larger, smaller))[0]:
        raise ValueError("too few messages to split: near-duplicates hold a label together")
    return rows[larger], rows[smaller]


def read_text(path: Path) -> str:
    """Return what is in a file of UTF-8, without its byte order mark. Raises `InvalidData`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidData(path, [f"cannot be read: {error.strerror or error}"]) from error
    if not content.strip():
        raise InvalidData(path, ["the file is empty"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}"
        raise InvalidData(path, [wrong]) from error


def read_csv(text: str) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns, the rows with their places, and what is wrong with the table's shape.

    Raises `ValueError` for text that is not CSV at all.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    rows: list[dict[str, str]] = []
    uneven: list[str] = []
    line = 1
    try:
        for fields in reader:
            if not columns:
                columns = [name.strip() for name in fields]
            elif len(fields) == len(columns):
                rows.append({**dict(zip(columns, fields, strict=True)), PLACE: f"line {line}"})
            elif fields:
                uneven.append(f"line {line} has {len(fields)}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}, in the row that begins in line {line}") from error
    problems = []
    if twice := {name for name in columns if columns.count(name) > 1}:
        problems.append(f"columns given twice: {some([quote(name) for name in sorted(twice)])}")
    if uneven:
        problems.append(f"rows of other than {len(columns)} fields: {some(uneven)}")
    return columns, rows, problems
