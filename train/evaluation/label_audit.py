"""Find labels that look wrong: by out-of-fold scores, and by near-duplicates that disagree."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import ArrayLike, NDArray

from feedsieve.text import normalise
from train.data.near_duplicates import masked
from train.evaluation.metrics import check_labels_and_scores, evaluate

COLUMNS = ["msg_id", "msg", "label", "suggested_label", "score", "quality", "reason", "related"]
MOST_RELATED = 20  # near-duplicates to name beside a message; the reason counts all of them
_NAMES = ("negative", "positive")
# Similarity of near-duplicates, the closest first. Grouping ignores numbers, so offers at different
# prices share a group, and may rightly have different labels.
_SIMILARITIES = (
    "of identical text",
    "different only in numbers (both labels are right if the numbers matter)",
    "of similar text (both labels are right if the difference matters)",
)


def audit(frame: pd.DataFrame, scores: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Return the messages whose label looks wrong, the least credible first.

    `frame` has the columns `msg_id`, `msg` and `label`, and n rows. `scores` are out-of-fold
    probabilities of positive, and `groups` come from `near_duplicate_groups`, both (n,). A label is
    listed if

    - scores contradict it: the other label is at least as probable as on average where it was
      given (confident learning; Northcutt, Jiang and Chuang, JAIR 2021), or
    - at least half of the message's group has the other label.

    The index holds row numbers of `frame`, and the columns are `COLUMNS`. `label` is unchanged.
    `suggested_label` is the other label, missing if the only evidence is a tie in the group.
    `quality` is the probability of the label, 0 to 1. `related` has the msg_ids of up to 20
    near-duplicates with the other label, the closest first, separated by spaces.

    Raises `ValueError` for unequal lengths, values out of range, or a label that never occurs.
    """
    labels, scores = check_labels_and_scores(frame["label"], scores)
    groups = np.asarray(groups)
    if groups.shape != labels.shape:
        raise ValueError(f"groups must be of one length with labels, not of shape {groups.shape}")
    if len(np.unique(labels)) < 2:
        raise ValueError("an audit needs labels 0 and 1, both of them")
    probabilities = np.column_stack([1 - scores, scores])
    # cleanlab's default cuts off at an estimated count, and so may list one of two copies with the
    # same score. On labels reversed on purpose it found a tenth more and listed a third more. For
    # two labels a pool of processes does not pay.
    doubted = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    members = {row: rows for rows in _mixed_groups(labels, groups) for row in rows.tolist()}
    texts = {row: normalise(frame["msg"].iat[row]).lower() for row in members}
    rows, cells = [], []
    for row in np.lexsort((~doubted, quality)).tolist():
        group = members.get(row, np.array([row]))
        others = group[labels[group] != labels[row]].tolist()
        if not doubted[row] and 2 * len(others) < len(group):
            continue
        similarity = {other: _similarity(texts[row], texts[other]) for other in others}
        others.sort(key=lambda other: similarity[other])
        looks_wrong = doubted[row] or 2 * len(others) > len(group)
        rows.append(row)
        cells.append(
            (
                1 - labels[row] if looks_wrong else None,
                _reason(labels[row], quality[row], doubted[row], similarity, len(group)),
                " ".join(frame["msg_id"].iloc[others[:MOST_RELATED]]),
            )
        )
    added = pd.DataFrame(cells, columns=["suggested_label", "reason", "related"], index=rows)
    table = frame.reset_index(drop=True).assign(score=scores, quality=quality).loc[rows]
    return table.join(added).astype({"suggested_label": "Int64"})[COLUMNS]


def suspects(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the row numbers for which `audit` suggests another label, the most suspect first."""
    return table.index[table["suggested_label"].notna()].to_numpy(np.int64)


def what_if(
    labels: ArrayLike,
    scores: ArrayLike,
    suspects: ArrayLike,
    threshold: float,
    tops: Sequence[int] = (10, 25, 50, 100),
) -> list[dict[str, float]]:
    """Return the metrics if the first k suspects had the other label.

    A row has `flipped` (k), `f1` and `average_precision`. There is one for k = 0, for each of
    `tops` up to the number of suspects, and for all suspects. `labels` (0 or 1) and `scores`
    (0 to 1) are (n,); `suspects` are row numbers, the most suspect first. Scores and `threshold`
    stay as they are.

    This is an upper bound, not an estimate: the model's own scores choose the suspects, so each
    flip turns an error of the model into a success.

    Raises `ValueError` as `evaluate` does, and for suspects that repeat or are out of range.
    """
    labels = np.array(labels)  # a copy, to flip
    suspects = np.asarray(suspects, dtype=np.int64)
    is_row = (suspects >= 0) & (suspects < len(labels))
    if not is_row.all() or len(np.unique(suspects)) < len(suspects):
        raise ValueError(f"suspects must be row numbers below {len(labels)}, each once")
    rows: list[dict[str, float]] = []
    done = 0
    for count in sorted({min(max(top, 0), len(suspects)) for top in (0, *tops)}):
        labels[suspects[done:count]] ^= 1
        metrics = evaluate(labels, scores, threshold)
        rows.append({"flipped": count} | {k: metrics[k] for k in ("f1", "average_precision")})
        done = count
    return rows


def _mixed_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each group with both labels."""
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(np.unique(labels[rows])) == 2:
            yield rows


def _similarity(text: str, other: str) -> int:
    """Return the index in `_SIMILARITIES` of two near-duplicates, normalised and in lower case."""
    if text == other:
        return 0
    return 1 if masked(text) == masked(other) else 2


def _reason(
    label: int, quality: float, doubted: bool, similarity: Mapping[int, int], size: int
) -> str:
    """Return the reason for listing a label.

    `similarity` has the near-duplicates with the other label; `size` is that of the whole group.
    """
    given, other = _NAMES[label], _NAMES[1 - label]
    predicted, probability = (other, 1 - quality) if doubted else (given, quality)
    score = f"its out-of-fold probability of {predicted} is {min(probability, 0.999):.1%}"
    by_score = f"labelled {given}, but {score}" if doubted else score
    if not similarity:
        return by_score
    counts = Counter(similarity.values())
    kinds = ", ".join(
        f"{counts[kind]} {name}" for kind, name in enumerate(_SIMILARITIES) if counts[kind]
    )
    if len(counts) == 1:
        kinds = kinds.partition(" ")[2]
    by_group = f"labelled {other}: {len(similarity)} of {size - 1} near-duplicates, {kinds}"
    return "; ".join([by_score, by_group] if doubted else [by_group, by_score])
