"""Audit labels: which are likely wrong, why, and how many of them to expect."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from feedsieve.text import normalise, plain
from train.data.near_duplicates import masked
from train.data.validation import checked
from train.evaluation.error_kinds import Kind, kinds
from train.evaluation.label_errors import consensus, probability_wrong
from train.evaluation.metrics import check_labels_and_scores

SCORE = "score"  # the view of the whole model
COLUMNS = [
    "msg_id",
    "msg",
    "label",
    "suggested_label",
    "score",
    "wrong",
    "wrong_so_far",
    "kind",
    "reason",
    "related",
    "neighbours",
]
LEAST = 0.05  # probability that a label is wrong below which it is not listed
MOST_RELATED = 20  # near-duplicates to name beside a message; the reason counts all of them
NEIGHBOURS = 3
_STEPS = (25, 50, 100, 200, 300, 400, 800)
_LONGEST_NEIGHBOUR = 160  # characters
_NAMES = ("negative", "positive")
# Similarity of near-duplicates, the closest first. Grouping ignores numbers, so offers at different
# prices share a group, and may rightly have different labels.
_SIMILARITIES = (
    "of identical text",
    "different only in numbers (both labels are right if the numbers matter)",
    "of similar text (both labels are right if the difference matters)",
)


@dataclass(frozen=True)
class Audit:
    """The labels that may be wrong, the most likely first; see `audit`."""

    table: pd.DataFrame  # `COLUMNS`, indexed by row numbers
    kinds: Sequence[Kind]
    audited: int  # labels that nobody has checked yet

    @property
    def expected(self) -> float:
        """The number of wrong labels to be expected among those listed."""
        return float(self.table["wrong"].sum())

    def progress(self) -> list[tuple[int, float]]:
        """Return how many wrong labels to expect among the first k, for several k, at most all."""
        so_far = self.table["wrong_so_far"].tolist()
        steps = [k for k in _STEPS if k < len(so_far)] + [len(so_far)] * bool(so_far)
        return [(k, so_far[k - 1]) for k in steps]


def audit(
    frame: pd.DataFrame, views: Mapping[str, NDArray[np.float64]], groups: NDArray[np.int64]
) -> Audit:
    """Return the labels that may be wrong, with reasons, the most likely first.

    `frame` has the columns `msg_id`, `msg` and `label`, and n rows; those with `ground_truth` have
    been checked and are not listed. `views` are out-of-fold scores by name, 0 to 1, with one named
    `SCORE`, and `groups` come from `near_duplicate_groups`, all (n,).

    `label` is unchanged, and `suggested_label` is the other one, or missing if the label is more
    likely right. `wrong` is the probability that it is wrong, and `wrong_so_far` the number to be
    expected from the first row to this one. If at least half of a message's near-duplicates have
    the other label, it is at least half their share, whatever the scores say. `kind` says what a
    message has in common with others that are doubted (`error_kinds`). `related` has the msg_ids of
    up to 20 near-duplicates with the other label, the closest first, separated by spaces.
    `neighbours` are empty: see `with_neighbours`.

    Raises `ValueError` for unequal lengths, values out of range, or a label that never occurs.
    """
    labels, scores = check_labels_and_scores(frame["label"], views[SCORE])
    views = {name: check_labels_and_scores(labels, view)[1] for name, view in views.items()}
    groups = np.asarray(groups)
    if groups.shape != labels.shape:
        raise ValueError(f"groups must be of one length with labels, not of shape {groups.shape}")
    if len(np.unique(labels)) < 2:
        raise ValueError("an audit needs labels 0 and 1, both of them")
    frame = frame.reset_index(drop=True)
    texts = frame["msg"].tolist()
    members = {row: rows for rows in _mixed_groups(labels, groups) for row in rows.tolist()}
    wrong = probability_wrong(labels, consensus(labels, views.values()))
    for row, group in members.items():
        share = float((labels[group] != labels[row]).sum()) / (len(group) - 1)
        if share >= 0.5:
            wrong[row] = max(wrong[row], share / 2)
    wrong[checked(frame)] = 0.0
    listed = [int(row) for row in np.argsort(-wrong, kind="stable") if wrong[row] >= LEAST]
    found = kinds(texts, labels, wrong)
    kind_of = {row: kind for kind in found for row in kind.rows.tolist()}
    similarity = _similarities(texts, labels, members, listed)
    cells = {
        "suggested_label": [1 - labels[row] if wrong[row] > 0.5 else None for row in listed],
        "score": scores[listed],
        "wrong": wrong[listed],
        "wrong_so_far": wrong[listed].cumsum(),
        "kind": [str(kind_of[row]) if row in kind_of else "" for row in listed],
        "reason": [
            _reason(
                labels[row],
                {name: view[row] for name, view in views.items()},
                similarity[row],
                len(members.get(row, [row])),
            )
            for row in listed
        ],
        "related": [
            " ".join(frame["msg_id"].iloc[list(similarity[row])[:MOST_RELATED]]) for row in listed
        ],
        "neighbours": "",
    }
    table = frame.loc[listed, ["msg_id", "msg", "label"]].assign(**cells)
    table = table.astype({"suggested_label": "Int64"})[COLUMNS]
    return Audit(table, found, int((~checked(frame)).sum()))


def _similarities(
    texts: Sequence[str],
    labels: NDArray[np.int64],
    members: Mapping[int, NDArray[np.int64]],
    rows: Sequence[int],
) -> dict[int, dict[int, int]]:
    """Return the near-duplicates with the other label of each row, the closest first.

    The values are indices in `_SIMILARITIES`.
    """
    lowered = {row: normalise(texts[row]).lower() for row in members}
    found = {}
    for row in rows:
        others = [other for other in members.get(row, []) if labels[other] != labels[row]]
        similarity = {other: _similarity(lowered[row], lowered[other]) for other in others}
        found[row] = dict(sorted(similarity.items(), key=lambda each: each[1]))
    return found


def with_neighbours(
    table: pd.DataFrame,
    frame: pd.DataFrame,
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> pd.DataFrame:
    """Return rows of an audit's table with `neighbours` filled in; the others are as for `audit`.

    They are the most similar messages of other groups, by their words, a line for each: label,
    score and text. Each row is compared with all messages, which takes milliseconds.
    """
    texts, labels = frame["msg"].tolist(), frame["label"].to_numpy()
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+").fit_transform(
        [plain(text) for text in texts]
    )
    found = []
    for row in table.index:
        similar = (vectors @ vectors[[row]].T).toarray().ravel()
        similar[groups == groups[row]] = 0
        nearest = np.argpartition(-similar, NEIGHBOURS)[:NEIGHBOURS]
        nearest = nearest[np.argsort(-similar[nearest], kind="stable")]
        found.append(
            "\n".join(
                f"{_NAMES[labels[other]]}, score {scores[other]:.2f}: {_on_one_line(texts[other])}"
                for other in nearest
                if similar[other] > 0
            )
        )
    return table.assign(neighbours=found)


def _on_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NEIGHBOUR else line[: _LONGEST_NEIGHBOUR - 1] + "…"


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
    label: int, scores: Mapping[str, float], similarity: Mapping[int, int], size: int
) -> str:
    """Return the reason to doubt a label.

    `scores` are by view; `similarity` has the near-duplicates with the other label, and `size` is
    that of the whole group.
    """
    given, other = _NAMES[label], _NAMES[1 - label]
    against = {name: 1 - score if label else score for name, score in scores.items()}
    by_score = f"labelled {given}, {other} by " + ", ".join(
        f"{name} {min(probability, 0.999):.1%}" for name, probability in against.items()
    )
    if not similarity:
        return by_score
    counts = Counter(similarity.values())
    alike = ", ".join(
        f"{counts[kind]} {name}" for kind, name in enumerate(_SIMILARITIES) if counts[kind]
    )
    if len(counts) == 1:
        alike = alike.partition(" ")[2]
    return f"{by_score}; labelled {other}: {len(similarity)} of {size - 1} near-duplicates, {alike}"
