"""Read Label Studio's exports: merge the annotations of each task into one label."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from train.data.validation import PLACE, first_few, parse_label, quote

_log = logging.getLogger(__name__)
_OWN_COLUMNS = {"annotation_id", "annotator"}
_OTHER_COLUMNS = {"id", "created_at", "updated_at", "lead_time", "msg_id", "msg", "text", "subset"}
_NOT_CHOICES = _OWN_COLUMNS | _OTHER_COLUMNS | {PLACE}


@dataclass(frozen=True)
class Vote:
    """An annotator's latest label of a task, as chosen, and its time."""

    label: str
    when: datetime


@dataclass(frozen=True)
class Decision:
    """A labelled task, the votes on it, and the outcome."""

    row: Mapping[str, str]  # place, msg_id, and msg and subset where the task has them
    votes: Mapping[str, Vote]  # by annotator
    label: str | None  # of the majority, None for a tie


@dataclass(frozen=True)
class _Annotation:
    """One annotation, with the data of its task."""

    place: str
    task: str
    annotator: str
    when: datetime
    data: Mapping[str, Any]
    choices: Mapping[str, str]


def is_flat_export(columns: Iterable[str]) -> bool:
    """Return whether a table with these columns is a Label Studio export.

    Labels merged by `labeling` name their annotators as well, but have `labeled_at`.
    """
    return not _OWN_COLUMNS.isdisjoint(columns) and "labeled_at" not in columns


def from_json(document: Any) -> list[dict[str, str]]:
    """Return the labelled rows of a JSON or JSON-MIN export; see `from_flat`.

    Raises `ValueError` if the document is not a list of tasks.
    """
    tasks = _tasks(document)
    if not any("annotations" in task for task in tasks):
        return from_flat([task | {PLACE: f"row {n}"} for n, task in enumerate(tasks, 1)])
    return _rows(decisions(tasks), len(tasks))


def from_flat(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row of `msg_id`, `msg`, `label` (and `subset`) for each labelled task.

    `rows` are those of a CSV or JSON-MIN export, one for each annotation, with their `PLACE`.
    The task's `id` stands in for a missing `msg_id`, and `text` for `msg`. The majority of
    annotators decides, each by their latest annotation; ties are left out.
    Raises `ValueError` if it is unclear which column holds the labels.
    """
    annotations = [
        _Annotation(
            place=str(row[PLACE]),
            task=_text(row.get("id")) or f"row {number}",
            annotator=_text(row.get("annotator")) or f"row {number}",
            when=_time(row),
            data=row,
            choices={name: _choice(row[name]) for name in row if name not in _NOT_CHOICES},
        )
        for number, row in enumerate(rows)
    ]
    return _rows(_decide(annotations), len({annotation.task for annotation in annotations}))


def decisions(document: Any) -> list[Decision]:
    """Return the decision on each labelled task of a JSON export, in its order.

    Each annotator has one vote, their latest annotation that was not cancelled.
    Raises `ValueError` for another document, or if it is unclear where the labels are.
    """
    annotations = []
    for number, task in enumerate(_tasks(document), 1):
        if not isinstance(task.get("data"), dict) or not isinstance(task.get("annotations"), list):
            raise ValueError(f"row {number} has no data or no annotations: {quote(task)}")
        annotations += _annotations(task, f"row {number}")
    return _decide(annotations)


def _tasks(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, list):
        raise ValueError("not a list of tasks, as Label Studio exports them")
    for number, task in enumerate(document, 1):
        if not isinstance(task, dict):
            raise ValueError(f"row {number} is not a task: {quote(task)}")
    return document


def _annotations(task: dict[str, Any], place: str) -> list[_Annotation]:
    """Return the annotations of a task of a full JSON export, without cancelled ones."""
    annotations = []
    for number, annotation in enumerate(task["annotations"]):
        if annotation.get("was_cancelled"):
            continue
        by = annotation.get("completed_by")
        annotator = _text(by.get("id", by.get("email")) if isinstance(by, dict) else by)
        choices = {
            str(result.get("from_name")): _choice(result["value"])
            for result in annotation.get("result") or []
            if isinstance(result.get("value"), dict) and "choices" in result["value"]
        }
        annotations.append(
            _Annotation(
                place=place,
                task=place,
                annotator=annotator or f"annotation {number}",
                when=_time(annotation),
                data={"id": task.get("id")} | task["data"],
                choices=choices,
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
            row=_row(next(iter(votes.values()))),
            votes={by: Vote(vote.choices[name], vote.when) for by, vote in votes.items()},
            label=_majority([vote.choices[name] for vote in votes.values()]),
        )
        for votes in latest.values()
        if votes
    ]


def _rows(decided: Sequence[Decision], tasks: int) -> list[dict[str, str]]:
    """Return a row for each of the `tasks` with a label, in the order of the file."""
    if len(decided) < tasks:
        _log.info("%d tasks have no label and are left out", tasks - len(decided))
    if ties := [
        f"{decision.row[PLACE]}, msg_id {quote(decision.row['msg_id'])}"
        for decision in decided
        if decision.label is None
    ]:
        _log.warning("annotators are tied on %d tasks, left out: %s", len(ties), first_few(ties))
    return [
        {**decision.row, "label": decision.label}
        for decision in decided
        if decision.label is not None
    ]


def _labels_name(annotations: Sequence[_Annotation]) -> str:
    """Return the name of the label among the choices: `label`, or the one with label values."""
    values: dict[str, list[str]] = {}
    for annotation in annotations:
        for name, value in annotation.choices.items():
            values.setdefault(name, []).extend([value] if value else [])
    candidates = [
        name
        for name, given in values.items()
        if sum(parse_label(value) is not None for value in given) * 2 > len(given)
    ]
    if "label" in values or not annotations:
        if others := [quote(name) for name in candidates if name != "label"]:
            _log.warning("labels are read from 'label', not from %s", first_few(others))
        return "label"
    if len(candidates) > 1:
        raise ValueError(
            f"labels could be any of {first_few([quote(name) for name in candidates])}:"
            " rename the right one to 'label'"
        )
    if candidates or len(values) == 1:
        return (candidates or list(values))[0]
    raise ValueError(
        "no column holds labels (0, 1, positive or negative): looked at "
        + (first_few([quote(name) for name in values]) or "no choices")
    )


def _majority(labels: Sequence[str]) -> str | None:
    """Return the majority's label, None for a tie; an unknown label wins, to be reported."""
    parsed = [parse_label(label) for label in labels]
    if None in parsed:
        return labels[parsed.index(None)]
    (winner, votes), *others = Counter(parsed).most_common()
    return None if others and others[0][1] == votes else str(winner)


def _row(annotation: _Annotation) -> dict[str, str]:
    data = annotation.data
    sources = {"msg_id": ("msg_id", "id"), "msg": ("msg", "text"), "subset": ("subset",)}
    row = {PLACE: annotation.place, "msg_id": ""}
    for name, names in sources.items():
        if source := next((one for one in names if one in data), None):
            row[name] = _text(data[source])
    return row


def _choice(value: Any) -> str:
    """Return the choice made; several choices as JSON, which is not a label."""
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
    """Return when an annotation was last changed, the minimum if that is unknown."""
    try:
        when = datetime.fromisoformat(fields.get("updated_at") or fields.get("created_at") or "")
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
