"""Label Studio's exports: many annotations of a task in, one label of a message out."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from train.validation import PLACE, parse_label, quote, some

_log = logging.getLogger(__name__)
_OWN_COLUMNS = {"annotation_id", "annotator"}
_OTHER_COLUMNS = {"id", "created_at", "updated_at", "lead_time", "msg_id", "msg", "text", "subset"}


@dataclass(frozen=True)
class Vote:
    """What one annotator said last of a task: the label as it was chosen, and when."""

    label: str
    when: datetime


@dataclass(frozen=True)
class Decision:
    """What is to be made of one task that somebody labelled."""

    row: Mapping[str, str]  # place, msg_id, msg if the task has one, and perhaps subset
    votes: Mapping[str, Vote]  # by annotator
    label: str | None  # of the majority; None for a tie


@dataclass(frozen=True)
class _Annotation:
    """What one annotator said of one task, and the task's own data."""

    place: str
    task: str
    annotator: str
    when: datetime
    data: Mapping[str, Any]
    choices: Mapping[str, Any]


def is_flat_export(columns: Iterable[str]) -> bool:
    """Tell whether a table with these columns is a Label Studio export.

    Labels that `labeling` has merged say who gave them, too, and when: `labeled_at`.
    """
    return not _OWN_COLUMNS.isdisjoint(columns) and "labeled_at" not in columns


def from_json(document: Any) -> list[dict[str, str]]:
    """Return the labelled rows of a JSON or JSON-MIN export; see `from_flat`.

    Raises `ValueError` when the document is not a list of tasks.
    """
    tasks = _checked(document)
    if not any("annotations" in task for task in tasks):
        return from_flat([task | {PLACE: f"row {n}"} for n, task in enumerate(tasks, 1)])
    return _rows(decisions(tasks), len(tasks))


def decisions(document: Any) -> list[Decision]:
    """Return what annotators decided of the tasks of a JSON export, in its order.

    Tasks that nobody labelled are left out. Of an annotator's annotations of a task the latest
    counts, then the majority of annotators; a cancelled annotation does not count.
    Raises `ValueError` when the document is no such export, or has no labels where they should be.
    """
    annotations = []
    for number, task in enumerate(_checked(document), 1):
        if not isinstance(task.get("data"), dict) or not isinstance(task.get("annotations"), list):
            raise ValueError(f"row {number} has no data or no annotations: {quote(task)}")
        annotations += _of_task(task, f"row {number}")
    return _decide(annotations)


def from_flat(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row of `msg_id`, `msg`, `label` (and `subset`) for each labelled task.

    `rows` are those of a CSV or JSON-MIN export, one for each annotation, with their `place`.
    The task's `id` stands in for a missing `msg_id`, and `text` for `msg`. Of an annotator's
    annotations of a task the latest counts, then the majority of annotators; a tie is dropped.
    Raises `ValueError` when it is not plain which column holds the labels.
    """
    annotations = [
        _Annotation(
            place=str(row[PLACE]),
            task=_text(row.get("id")) or f"row {number}",
            annotator=_text(row.get("annotator")) or f"row {number}",
            when=_time(row),
            data=row,
            choices={
                name: _choice(value)
                for name, value in row.items()
                if name not in _OWN_COLUMNS | _OTHER_COLUMNS | {PLACE}
            },
        )
        for number, row in enumerate(rows)
    ]
    return _rows(_decide(annotations), len({annotation.task for annotation in annotations}))


def _checked(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, list):
        raise ValueError("not a list of tasks, as Label Studio exports them")
    for number, task in enumerate(document, 1):
        if not isinstance(task, dict):
            raise ValueError(f"row {number} is not a task: {quote(task)}")
    return document


def _of_task(task: dict[str, Any], place: str) -> list[_Annotation]:
    """Return the annotations of a task of a full JSON export that nobody cancelled."""
    data = {"id": task.get("id")} | task["data"]
    annotations = []
    for number, annotation in enumerate(task["annotations"]):
        if annotation.get("was_cancelled"):
            continue
        by = annotation.get("completed_by")
        annotator = _text(by.get("id", by.get("email")) if isinstance(by, dict) else by)
        annotations.append(
            _Annotation(
                place=place,
                task=place,
                annotator=annotator or f"annotation {number}",
                when=_time(annotation),
                data=data,
                choices={
                    str(result.get("from_name")): _choice(result["value"])
                    for result in annotation.get("result") or []
                    if isinstance(result.get("value"), dict) and "choices" in result["value"]
                },
            )
        )
    return annotations


def _decide(annotations: Sequence[_Annotation]) -> list[Decision]:
    name = _labels_name(annotations)
    latest: dict[str, dict[str, _Annotation]] = {annotation.task: {} for annotation in annotations}
    for annotation in sorted(annotations, key=lambda annotation: annotation.when):
        if annotation.choices.get(name):
            latest[annotation.task][annotation.annotator] = annotation
    return [
        Decision(
            row=_row(next(iter(said.values()))),
            votes={by: Vote(vote.choices[name], vote.when) for by, vote in said.items()},
            label=_majority([vote.choices[name] for vote in said.values()]),
        )
        for said in latest.values()
        if said
    ]


def _rows(decided: Sequence[Decision], tasks: int) -> list[dict[str, str]]:
    """Return a row for each of the `tasks` that has a label, in the order of the file."""
    if len(decided) < tasks:
        _log.info("%d tasks have no label and are left out", tasks - len(decided))
    rows = [
        {**decision.row, "label": decision.label}
        for decision in decided
        if decision.label is not None
    ]
    if tied := [
        f"{decision.row[PLACE]}, msg_id {quote(decision.row['msg_id'])}"
        for decision in decided
        if decision.label is None
    ]:
        _log.warning("annotators are tied on %d tasks, left out: %s", len(tied), some(tied))
    return rows


def _labels_name(annotations: Sequence[_Annotation]) -> str:
    """Return which of the choices is the label: `label`, or the one whose values are labels."""
    values: dict[str, list[str]] = {}
    for annotation in annotations:
        for name, value in annotation.choices.items():
            values.setdefault(name, []).extend([value] if value else [])
    alike = [name for name in values if _mostly_labels(values[name])]
    if "label" in values:
        if others := [quote(name) for name in alike if name != "label"]:
            _log.warning("labels are those of 'label', not of %s", some(others))
        return "label"
    if len(alike) > 1:
        raise ValueError(
            f"labels could be any of {some([quote(name) for name in alike])}: "
            "name the one that is meant 'label'"
        )
    if alike or len(values) == 1:
        return (alike or list(values))[0]
    if annotations:
        raise ValueError(
            "nothing in it holds labels (0, 1, positive or negative): looked at "
            + (some([quote(name) for name in values]) or "no choices")
        )
    return "label"


def _mostly_labels(values: Sequence[str]) -> bool:
    return sum(parse_label(value) is not None for value in values) * 2 > len(values)


def _majority(labels: Sequence[str]) -> str | None:
    """Return what most annotators said, None for a tie; an unknown label wins, to be reported."""
    parsed = [parse_label(label) for label in labels]
    if None in parsed:
        return labels[parsed.index(None)]
    (winner, votes), *others = Counter(parsed).most_common()
    return None if others and others[0][1] == votes else str(winner)


def _row(annotation: _Annotation) -> dict[str, str]:
    data = annotation.data
    row = {PLACE: annotation.place}
    row["msg_id"] = _text(data["msg_id"] if "msg_id" in data else data.get("id"))
    if text := [data[name] for name in ("msg", "text") if name in data]:
        row["msg"] = _text(text[0])
    if "subset" in data:
        row["subset"] = _text(data["subset"])
    return row


def _choice(value: Any) -> str:
    """Return the choice made; several at once as the JSON that they are, which is no label."""
    if isinstance(value, str) and value.startswith('{"choices"'):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        value = value["choices"]
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else ""
    return _text(value)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _time(fields: Mapping[str, Any]) -> datetime:
    """Return when an annotation was last changed; the beginning of time if that is not told."""
    try:
        when = datetime.fromisoformat(fields.get("updated_at") or fields.get("created_at") or "")
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
