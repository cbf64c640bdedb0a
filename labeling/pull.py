"""Pull: what annotators decided, merged into the file of labelled messages."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from itertools import combinations
from pathlib import Path

import numpy as np
from sklearn.metrics import cohen_kappa_score

from feedsieve.files import open_whole
from feedsieve.text import fingerprint, storable
from labeling.batch import read_table
from labeling.push import AUDIT_TITLE, TITLE
from labeling.studio import Studio
from train.label_studio import Decision, decisions
from train.validation import parse_label, quote, some

COLUMNS = ("msg_id", "msg", "label", "annotator", "labeled_at")
FEWEST_COMMON = 10  # messages that two annotators both labelled, for their agreement to be told


class BadLabels(ValueError):
    """Labels that cannot be merged; says which, and why."""


@dataclass(frozen=True)
class Label:
    """What annotators decided of one message."""

    msg_id: str
    msg: str
    label: int  # 0 or 1
    annotator: str  # those who said so, separated by spaces
    labeled_at: str  # when the last of them did, in UTC


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree beyond chance."""

    first: str
    second: str
    common: int  # messages that both labelled
    same: float  # share of these on which they agree, 0 to 1
    kappa: float  # Cohen's kappa, -1 to 1; NaN if both only ever gave one and the same label


@dataclass
class Merged:
    """The rows of the file as they are to be, and what became of them."""

    columns: list[str]
    rows: list[dict[str, str]]
    added: int = 0
    confirmed: int = 0
    changed: list[str] = field(default_factory=list)  # a clause for each label that is another now
    other_text: list[str] = field(default_factory=list)  # msg_ids whose text is another in the file


@dataclass(frozen=True)
class Pulled:
    """What a pull did."""

    merged: Merged
    tied: list[str]  # msg_ids on which annotators are tied
    agreements: list[Agreement]
    is_written: bool  # False if the file was as it is to be already


def pull(studio: Studio, path: Path) -> Pulled:
    """Merge the labels of both projects into the CSV at `path`, which is made if it is not there.

    A message that was audited has the label of the audit: who looks twice knows more. The file is
    replaced whole, and not touched if nothing changes.
    Raises `BadLabels`, `StudioUnavailable` and `OSError`.
    """
    columns, rows = _read(path)
    found = {title: _decisions(studio, title) for title in (TITLE, AUDIT_TITLE)}
    labels, tied = resolve([*found[TITLE], *found[AUDIT_TITLE]])
    merged = merge(columns, rows, labels)
    is_written = merged.rows != rows or not path.exists()
    if is_written:
        _write(merged, path)
    return Pulled(merged, tied, agreements(found[TITLE]), is_written)


def resolve(decided: Iterable[Decision]) -> tuple[list[Label], list[str]]:
    """Return the label of each message that has one, and the msg_ids of ties.

    Of two decisions on one message the later in `decided` counts. Messages of one msg_id and
    different texts, of two chats say, are two messages.
    Raises `BadLabels` for a choice that is no label.
    """
    latest = {_message(decision): decision for decision in decided}
    labels, tied = [], []
    for (identifier, _text), decision in latest.items():
        if decision.label is None:
            tied.append(identifier)
            continue
        label = parse_label(decision.label)
        if label is None:
            raise BadLabels(
                f"msg_id {quote(identifier)} is labelled {quote(decision.label)}, "
                "neither positive nor negative: was the labelling configuration changed?"
            )
        said = {by: vote for by, vote in decision.votes.items() if parse_label(vote.label) == label}
        when = max(vote.when for vote in said.values()).astimezone(UTC)
        labels.append(
            Label(
                msg_id=identifier.strip(),
                msg=decision.row.get("msg", ""),
                label=label,
                annotator=" ".join(sorted(said)),
                labeled_at=when.isoformat(timespec="seconds"),
            )
        )
    return labels, tied


def _message(decision: Decision) -> tuple[str, str]:
    return decision.row["msg_id"], fingerprint(decision.row.get("msg", ""))


def merge(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], labels: Sequence[Label]
) -> Merged:
    """Return `rows` with `labels` merged into them by msg_id, new ones after them.

    Every row and every column stays. A row of another text than the label's is left as it is. New
    rows are of the subset `train` if there are subsets, so that the test part stays what it was.
    """
    merged = Merged(
        [*columns, *(name for name in COLUMNS if name not in columns)], [dict(row) for row in rows]
    )
    by_id = {row["msg_id"].strip(): row for row in merged.rows}
    for label in labels:
        given = {"annotator": label.annotator, "labeled_at": label.labeled_at}
        row = by_id.get(label.msg_id)
        if row is None:
            row = {"msg_id": label.msg_id, "msg": label.msg, "label": str(label.label), **given}
            if any(each.get("subset", "").strip() for each in rows):
                row["subset"] = "train"
            by_id[label.msg_id] = row
            merged.rows.append(row)
            merged.added += 1
        elif fingerprint(row["msg"]) != fingerprint(label.msg):
            merged.other_text.append(label.msg_id)
        else:
            was = parse_label(row["label"])
            if was == label.label:
                merged.confirmed += 1
            else:
                merged.changed.append(
                    f"msg_id {quote(label.msg_id)}: {quote(row['label'])} is now {label.label}, "
                    f"by {label.annotator} at {label.labeled_at}"
                )
                row["label"] = str(label.label)
            row.update(given)
    return merged


def agreements(decided: Iterable[Decision]) -> list[Agreement]:
    """Return how far each two annotators agree who both labelled enough of the messages.

    Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    said: dict[str, dict[tuple[str, str], int]] = {}
    for decision in decided:
        for by, vote in decision.votes.items():
            if (label := parse_label(vote.label)) is not None:
                said.setdefault(by, {})[_message(decision)] = label
    found = []
    for first, second in combinations(sorted(said), 2):
        common = sorted(said[first].keys() & said[second].keys())
        if len(common) < FEWEST_COMMON:
            continue
        left, right = (np.array([said[by][name] for name in common]) for by in (first, second))
        one_label = len(np.unique([left, right])) == 1
        kappa = np.nan if one_label else cohen_kappa_score(left, right)
        same = float(np.mean(left == right))
        found.append(Agreement(first, second, len(common), same, float(kappa)))
    return found


def _decisions(studio: Studio, title: str) -> list[Decision]:
    """Return what was decided in a project, with annotators by their e-mail addresses."""
    project = studio.find(title)
    if project is None:
        return []
    names = studio.annotators()
    try:
        decided = decisions(studio.export(project))
    except ValueError as error:
        raise BadLabels(f"project {title!r} at {studio.url}: {error}") from error
    return [
        Decision(
            row={name: storable(value) for name, value in decision.row.items()},
            votes={names.get(by, by): vote for by, vote in decision.votes.items()},
            label=decision.label,
        )
        for decision in decided
    ]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of the file as they stand, none if it is not there."""
    if not path.exists():
        return [], []
    columns, rows, problems = read_table(path, BadLabels)
    if absent := [name for name in COLUMNS[:3] if name not in columns]:
        problems.append(f"missing columns: {', '.join(absent)}")
    else:
        ids = Counter(row["msg_id"].strip() for row in rows)
        if twice := [quote(name) for name, count in ids.items() if count > 1]:
            problems.append(f"msg_id given twice: {some(twice)}")
    if problems:
        raise BadLabels(f"{path}: {'; '.join(problems)}; mend it first, it was left as it is")
    return columns, [{name: row[name] for name in columns} for row in rows]


def _write(merged: Merged, path: Path) -> None:
    with open_whole(path) as file:
        table = csv.DictWriter(file, merged.columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(merged.rows)
