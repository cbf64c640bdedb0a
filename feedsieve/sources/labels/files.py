"""Files of labelled messages: CSV, JSON, JSON Lines, and the exports of Label Studio."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from feedsieve.errors import first_few, quote
from feedsieve.message import InvalidFile
from feedsieve.sources.columns import PLACE, ROLES, Repeated, compact
from feedsieve.sources.json_text import parse
from feedsieve.sources.labels import label_studio
from feedsieve.sources.labels.label_studio import Annotation, choice
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.labels.records import Records
from feedsieve.sources.labels.words import ALLOWED, WITHDRAWN, is_unlabelled, parse_label
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_rows import CsvFile
from feedsieve.sources.tables.encodings import detect
from feedsieve.text import normalise

STUDIO = "label-studio"
"""The origin of labels that were given in Label Studio."""

_UNLABELLED = "without a label"
_OF_STUDIO = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time")
_NAMES = {compact(name): name for name in (*_OF_STUDIO, "msg_id", "msg", "label", "labeled_at")}
_OBJECTS = {*ROLES["label"], "data", "annotations", "completions", "result"}
_E_MAILS = re.compile(r"\S+@\S+(?: \S+@\S+)+")  # as `labeling` merges those of a majority

Row = dict[str, Any]


@dataclass(frozen=True)
class Defaults:
    """Values for fields that a file of labels leaves out."""

    who: str  # for labels without an annotator
    origin: str
    words: Mapping[str, bool] = field(default_factory=dict)  # positive or not, by lower-case word

    def parse(self, value: str) -> bool | None:
        """Return whether a label is positive, None for an unknown word."""
        label = parse_label(value)
        return self.words.get(value.strip().lower(), None if label is None else label == 1)


def read_labels(path: Path, report: ReadReport, defaults: Defaults) -> list[LabelledMessage]:
    """Return the labels in a file, in its order.

    The file is CSV with columns msg_id,msg,label (see `label_records`), the same as JSON or JSON
    Lines, doccano's export, or one of Label Studio's (see `label_studio`). Its content decides, not
    its name. Rows without a label are skipped.

    Raises InvalidFile for another file, for a file without labels and for unknown labels.
    """
    try:
        rows = _json(path)
        if rows is None:
            rows = _table(path, report)
        labels = _read(rows, report, defaults)
        if not labels:
            raise ValueError(_without_labels(rows, report))
    except InvalidFile:
        raise
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:
        raise InvalidFile(f"{path}: {error}") from error
    return labels


def studio_labels(
    tasks: Sequence[Row], report: ReadReport, defaults: Defaults
) -> list[LabelledMessage]:
    """Return the labels in the tasks of Label Studio's JSON, one for each annotation.

    A task without a message id has none here either: its own number means nothing elsewhere.
    Raises ValueError.
    """
    given = label_studio.annotations(tasks)
    if bare := len(tasks) - len({annotation.place for annotation in given}):
        report.skip(_UNLABELLED, bare)
    return _of_annotations(given, (), report, defaults)


def _read(rows: list[Row], report: ReadReport, defaults: Defaults) -> list[LabelledMessage]:
    if label_studio.is_full_export(rows):
        return studio_labels(rows, report, defaults)
    placed = [row if PLACE in row else {**row, PLACE: f"row {n}"} for n, row in enumerate(rows, 1)]
    names = set(placed[0]) if placed else set()
    if "annotation_id" in names or ("annotator" in names and names & set(_OF_STUDIO[3:])):
        given = label_studio.flat_annotations(placed)
        return _of_annotations(given, _OF_STUDIO, report, defaults)
    return _of_records(placed, report, defaults)


def _json(path: Path) -> list[Row] | None:
    """Return the tasks or rows of a JSON file, None for a file of another format."""
    with detect(path).open(path) as file:
        start = file.read(1)
        while start and start.isspace():
            start = file.read(1)
        if not start:
            raise ValueError("expected labelled messages; the file is empty")
        if start not in "[{":
            return None
        document = parse(start + file.read())
    if isinstance(document, dict):
        if not _OBJECTS & {compact(name) for name in document}:
            names = first_few([quote(name) for name in document])
            raise ValueError(
                "expected tasks of Label Studio, or rows with msg_id, msg and label; the file is"
                f" an object with {names or 'nothing'}"
            )
        document = [document]
    return label_studio.tasks_of(document)


def _table(path: Path, report: ReadReport) -> list[Row]:
    file = CsvFile(path, report, _NAMES)
    names = [_NAMES.get(compact(name), name) for name in file.header]
    if repeated := [name for name in names if name and names.count(name) > 1]:
        raise Repeated(f"column {repeated[0]!r} is there twice; rename the other one")
    return [{**dict(zip(names, row, strict=True)), PLACE: f"line {n}"} for n, row in file.rows()]


def _of_annotations(
    given: Sequence[Annotation], own: Sequence[str], report: ReadReport, defaults: Defaults
) -> list[LabelledMessage]:
    """Return the labels of annotations; `own` are the columns of Label Studio in their data."""
    if not given:
        return []
    name = label_studio.labels_name(given)
    left_out = {*own, name} if own else ()
    rows = [
        {key: each.data[key] for key in each.data if key not in left_out} | {PLACE: each.place}
        for each in given
    ]
    records = Records(rows, report, is_of_messages=True)
    labels = _Labels(report, defaults)
    for each, row in zip(given, rows, strict=True):
        labelled = LabelledMessage(
            message=records.message(row),
            label=None,
            who=each.annotator or _numbered(defaults.who, each.number),
            time=None if each.when == label_studio.UNKNOWN_TIME else each.when,
            origin=STUDIO,
            is_ground_truth=each.is_ground_truth,
        )
        labels.add(each.place, labelled, each.choices.get(name, ""))
    return labels.all()


def _of_records(rows: list[Row], report: ReadReport, defaults: Defaults) -> list[LabelledMessage]:
    records = Records(rows, report)
    is_doccano = any(isinstance(records.label(row), list) for row in rows)
    labels = _Labels(report, defaults)
    for row in rows:
        message = records.message(row)
        people = records.text(row, "who")
        labelled = LabelledMessage(
            message=replace(message, id="") if is_doccano else message,
            label=None,
            who=defaults.who,
            time=records.labelled_at(row),
            origin=records.text(row, "origin") or defaults.origin,
            note=records.text(row, "note") or None,
            is_ground_truth=parse_label(records.text(row, "ground_truth")) == 1,
        )
        value = choice(records.label(row))
        for who in people.split() if _E_MAILS.fullmatch(people) else [people]:
            labels.add(row[PLACE], replace(labelled, who=who) if who else labelled, value)
            if not who and labelled.time is None:
                labels.check_contradiction(row[PLACE], labelled, value)
    return labels.all()


class _Labels:
    """Labels as they are read; faults are collected, and raised together."""

    def __init__(self, report: ReadReport, defaults: Defaults) -> None:
        self._report = report
        self._defaults = defaults
        self._found: dict[LabelledMessage, None] = {}
        self._unknown: list[str] = []
        self._several: list[str] = []
        self._first: dict[tuple[str, str, str], tuple[str, bool | None]] = {}
        self._contradictions: list[str] = []

    def add(self, place: str, labelled: LabelledMessage, value: str) -> None:
        """Add a label by its word, unless it is empty or repeats another one."""
        is_withdrawn = value.strip().lower() == WITHDRAWN
        label = None if is_withdrawn else self._defaults.parse(value)
        if label is None and not is_withdrawn and is_unlabelled(value):
            self._report.skip(_UNLABELLED)
        elif not normalise(labelled.message.text):
            self._report.skip("without text")
        elif label is None and not is_withdrawn:
            where = f"{_where(place, labelled)}: {quote(value)}"
            (self._several if value.startswith("[") else self._unknown).append(where)
        else:
            if label is not None:
                labelled = replace(labelled, label="positive" if label else "negative")
            if labelled in self._found:
                self._report.skip("repeated")
            self._found[labelled] = None

    def check_contradiction(self, place: str, labelled: LabelledMessage, value: str) -> None:
        """Collect a second label of a message by an unknown person at an unknown time."""
        label = self._defaults.parse(value)
        message = labelled.message
        key = message.source, message.id, normalise(message.text)
        first = self._first.setdefault(key, (place, label)) if label is not None else None
        if first and first[1] != label:
            self._contradictions.append(f"{first[0]} and {_where(place, labelled)}")

    def all(self) -> list[LabelledMessage]:
        """Return the labels. Raises ValueError if some are unknown or contradict others."""
        if self._several:
            raise ValueError(
                f"several choices in place of one label: {first_few(self._several)}; keep one of"
                " them, in Label Studio or in the file"
            )
        if self._unknown:
            raise ValueError(
                f"a label is one of {ALLOWED}, not as in {first_few(self._unknown)}; change it, or"
                " say what it means with --positive WORD or --negative WORD"
            )
        if self._contradictions:
            raise ValueError(
                f"two labels for one message: {first_few(self._contradictions)}; keep one of them,"
                " or say who gave each in a column who"
            )
        return list(self._found)


def _where(place: str, labelled: LabelledMessage) -> str:
    identifier = labelled.message.id
    return f"{place}, msg_id {quote(identifier)}" if identifier else place


def _numbered(who: str, number: int) -> str:
    return f"{who} ({number + 1})" if number else who


def _without_labels(rows: Sequence[Row], report: ReadReport) -> str:
    guessed = [name for name in ("predictions", "drafts") if any(row.get(name) for row in rows)]
    if guessed:
        return (
            f"no label by a person; {' and '.join(guessed)} are not labels: submit annotations in"
            " Label Studio, and export again"
        )
    skipped = ", ".join(f"{reason}: {count:,}" for reason, count in report.skipped.items())
    return f"no row has a label ({skipped or 'there are no rows'})"
