"""Label Studio's exports: annotations of tasks, and the majority of their annotators.

A task has annotations, each by one annotator. Read are JSON and JSON-MIN, one task, one file of a
target storage, `completions` of versions before 1.0, and the rows of CSV and TSV.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feedsieve.errors import first_few, quote
from feedsieve.sources.columns import PLACE, ROLES, compact
from feedsieve.sources.fields import read_time
from feedsieve.sources.labels.words import parse_label

_log = logging.getLogger(__name__)
UNKNOWN_TIME = datetime.min.replace(tzinfo=UTC)
_OWN_COLUMNS = {"annotation_id", "annotator"}
_OTHER_COLUMNS = {"id", "created_at", "updated_at", "lead_time", "msg_id", "msg", "text", "subset"}
_NOT_CHOICES = _OWN_COLUMNS | _OTHER_COLUMNS | {PLACE}
_LISTS = ("annotations", "completions")


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
class Annotation:
    """One annotation that was not cancelled, with the data of its task."""

    place: str
    task: tuple[str, str]  # equal for annotations of one message
    number: int  # from 0, within the task
    task_id: str  # of Label Studio; empty if unknown
    annotator: str  # e-mail address or number; empty if unknown
    when: datetime  # UNKNOWN_TIME if unknown
    data: Mapping[str, Any]
    choices: Mapping[str, str]  # what was chosen, by the name of the control
    is_ground_truth: bool = False

    @property
    def voter(self) -> str:
        """The annotator, or a name for an unknown one."""
        return self.annotator or f"annotation {self.number}"


def is_flat_export(columns: Iterable[str]) -> bool:
    """Return whether a table with these columns is a Label Studio export.

    Labels merged by `labeling` name their annotators as well, but have `labeled_at`.
    """
    return not _OWN_COLUMNS.isdisjoint(columns) and "labeled_at" not in columns


def tasks_of(document: Any) -> list[dict[str, Any]]:
    """Return the tasks of a JSON document, or the rows of a JSON-MIN export.

    Raises `ValueError` if the document is neither a list of objects, nor one task.
    """
    if isinstance(document, dict) and not is_full_export([_task(document)]):
        raise ValueError("not a list of tasks, as Label Studio exports them")
    rows = [document] if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise ValueError("not a list of tasks, as Label Studio exports them")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not a task: {quote(row)}")
    return [_task(row) for row in rows]


def is_full_export(tasks: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether these are tasks of a JSON export, and not rows of JSON-MIN."""
    return any(
        isinstance(task.get("data"), dict) or any(isinstance(task.get(key), list) for key in _LISTS)
        for task in tasks
    )


def annotations(tasks: Sequence[Mapping[str, Any]]) -> list[Annotation]:
    """Return the annotations in the tasks of a JSON export. Raises `ValueError`."""
    e_mails = _e_mails(tasks)
    found = []
    for number, task in enumerate(tasks, 1):
        lists = [task[key] for key in _LISTS if task.get(key) is not None]
        given: Any = lists[0] if lists else []
        if not isinstance(task.get("data"), dict) or not isinstance(given, list):
            raise ValueError(f"row {number} has no data or no annotations: {quote(task)}")
        if any(not isinstance(annotation, dict) for annotation in given):
            raise ValueError(
                f"row {number} has numbers of annotations only; export the project as JSON"
            )
        found += _annotations(task, given, f"row {number}", e_mails)
    return found


def flat_annotations(rows: Sequence[Mapping[str, Any]]) -> list[Annotation]:
    """Return the annotations in the rows of a CSV or JSON-MIN export, which have their `PLACE`."""
    numbers: Counter[str] = Counter()
    found = []
    for row in rows:
        task = text_of(row.get("id")) or str(row[PLACE])
        found.append(
            Annotation(
                place=str(row[PLACE]),
                task=(task, ""),
                number=numbers[task],
                task_id=text_of(row.get("id")),
                annotator=text_of(row.get("annotator")).strip(),
                when=_time(row),
                data=row,
                choices={name: choice(row[name]) for name in row if name not in _NOT_CHOICES},
            )
        )
        numbers[task] += 1
    return found


def decide(given: Sequence[Annotation]) -> list[Decision]:
    """Return the decision on each labelled task, in the order of their first annotations.

    Each annotator has one vote, the latest annotation. Raises `ValueError` if it is unclear where
    the labels are.
    """
    name = labels_name(given)
    latest: dict[tuple[str, str], dict[str, Annotation]] = {each.task: {} for each in given}
    for annotation in sorted(given, key=lambda annotation: annotation.when):
        if annotation.choices.get(name):
            latest[annotation.task][annotation.voter] = annotation
    return [
        Decision(
            row=_row(next(iter(votes.values()))),
            votes={by: Vote(vote.choices[name], vote.when) for by, vote in votes.items()},
            label=_majority([vote.choices[name] for vote in votes.values()]),
        )
        for votes in latest.values()
        if votes
    ]


def labels_name(given: Sequence[Annotation]) -> str:
    """Return the name of the label among the choices: `label`, or the one with label values.

    Raises `ValueError` if there is none, or more than one.
    """
    values: dict[str, list[str]] = {}
    for annotation in given:
        for name, value in annotation.choices.items():
            values.setdefault(name, []).extend([value] if value else [])
    candidates = _candidates(values)
    if "label" in values or not given:
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


def choice(value: Any) -> str:
    """Return the choice made; several choices as a JSON list, which is not a label."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return choice(json.loads(value))
        except (ValueError, RecursionError):
            return str(value)
    if isinstance(value, dict):
        value = value.get("choices", value.get("taxonomy", value))
    if isinstance(value, list):
        names = list(dict.fromkeys(_leaf(part) for part in value))
        value = names if len(names) > 1 else names[0] if names else ""
    return text_of(value)


def text_of(value: Any) -> str:
    """Return a value of JSON as text, empty for null."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _task(document: dict[str, Any]) -> dict[str, Any]:
    """Return a task; one annotation, as target storages have it, becomes its task."""
    task = document.get("task")
    if "result" in document and isinstance(task, dict) and isinstance(task.get("data"), dict):
        return {"id": task.get("id"), "data": task["data"], "annotations": [document]}
    return document


def _e_mails(tasks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the e-mail addresses of annotators by number: a file may have both."""
    return {
        text_of(by["id"]): str(by["email"])
        for task in tasks
        for key in _LISTS
        for annotation in task.get(key) or ()
        if isinstance(annotation, dict) and isinstance(by := annotation.get("completed_by"), dict)
        if by.get("id") and by.get("email")
    }


def _annotations(
    task: Mapping[str, Any], given: list[dict[str, Any]], place: str, e_mails: Mapping[str, str]
) -> list[Annotation]:
    """Return the annotations of a task, without cancelled ones."""
    task_id = text_of(task.get("id"))
    row = _identity({"id": task_id, **task["data"]})
    found = []
    for number, annotation in enumerate(given):
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        by = annotation.get("completed_by")
        annotator = text_of(by.get("id", by.get("email")) if isinstance(by, dict) else by)
        found.append(
            Annotation(
                place=place,
                task=(row.get("msg_id", ""), row["msg"]) if row.get("msg") else (place, ""),
                number=number,
                task_id=task_id,
                annotator=e_mails.get(annotator, annotator).strip(),
                when=_time(annotation),
                data=task["data"],
                choices=_choices(annotation),
                is_ground_truth=bool(annotation.get("ground_truth") or annotation.get("honeypot")),
            )
        )
    return found


def _choices(annotation: Mapping[str, Any]) -> dict[str, str]:
    """Return what was chosen, by the name of the control."""
    chosen: dict[str, list[Any]] = {}
    results = annotation.get("result")
    for result in results if isinstance(results, list) else ():
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and ("choices" in value or "taxonomy" in value):
            parts = value.get("choices", value.get("taxonomy"))
            chosen.setdefault(str(result.get("from_name")), []).extend(
                parts if isinstance(parts, list) else [parts]
            )
    return {name: choice(parts) for name, parts in chosen.items()}


def _leaf(part: Any) -> str:
    """Return a choice; of a path in a taxonomy, its last part."""
    return text_of(part[-1] if isinstance(part, list) and part else part)


def _candidates(values: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        name
        for name, given in values.items()
        if sum(parse_label(value) is not None for value in given) * 2 > len(given)
    ]


def _majority(labels: Sequence[str]) -> str | None:
    """Return the majority's label, None for a tie; an unknown label wins, to be reported."""
    parsed = [parse_label(label) for label in labels]
    if None in parsed:
        return labels[parsed.index(None)]
    (winner, votes), *others = Counter(parsed).most_common()
    return None if others and others[0][1] == votes else str(winner)


def _row(annotation: Annotation) -> dict[str, str]:
    data = annotation.data
    identity = _identity({"id": annotation.task_id, **data})
    row = {PLACE: annotation.place, "msg_id": "", **identity}
    return row | ({"subset": text_of(data["subset"])} if "subset" in data else {})


def _identity(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the msg_id and msg in the data of a task, where it has them."""
    written = {compact(name): name for name in reversed(list(data))}
    row = {}
    for name, role in (("msg_id", "id"), ("msg", "text")):
        if source := next((written[one] for one in ROLES[role] if one in written), None):
            row[name] = text_of(data[source])
    return row


def _time(fields: Mapping[str, Any]) -> datetime:
    """Return when an annotation was last changed; `completions` have seconds since 1970."""
    value = fields.get("updated_at") or fields.get("created_at")
    return read_time(value) or UNKNOWN_TIME
