"""Pull labels from Label Studio into the message store, and into a file of labelled messages."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import Any

from feedsieve import agreement
from feedsieve.agreement import Agreement
from feedsieve.csv_writing import csv_writer
from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.files import open_atomically
from feedsieve.sources.keys import given_key
from feedsieve.sources.labels.files import STUDIO, Defaults, studio_labels
from feedsieve.sources.labels.label_studio import Decision
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.labels.words import parse_label
from feedsieve.sources.report import ReadReport
from feedsieve.store.label_import import LabelImport
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint, storable
from labeling.batch import read_table
from labeling.push import project_title
from labeling.studio import Studio
from train.data.label_studio import decisions
from train.data.validation import GROUND_TRUTH

COLUMNS = ("msg_id", "msg", "label", "annotator", "labeled_at")
FEWEST_COMMON = 10  # messages in common from which the agreement of two annotators is reported


class InvalidLabels(FeedsieveError, ValueError):
    """Labels that cannot be merged; the message says which and why."""


@dataclass(frozen=True)
class Export:
    """The tasks of a project with annotations, in the format of the JSON export."""

    title: str
    is_audit: bool
    url: str  # of Label Studio
    tasks: list[dict[str, Any]]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Convert ValueError to InvalidLabels, which names the project."""
        try:
            yield
        except InvalidLabels:
            raise
        except ValueError as error:
            raise InvalidLabels(f"project {self.title!r} at {self.url}: {error}") from error


@dataclass(frozen=True)
class Label:
    """The majority label of one message."""

    msg_id: str
    msg: str
    label: int  # 0 or 1
    annotator: str  # those of the majority, separated by spaces
    labeled_at: str  # when the last of them labelled it, in UTC
    is_ground_truth: bool = False  # decided in an audit


@dataclass
class Merged:
    """The rows of the file after a merge, and counts of changes."""

    columns: list[str]
    rows: list[dict[str, str]]
    added: int = 0
    confirmed: int = 0
    changed: list[str] = field(default_factory=list)  # descriptions
    other_text: list[str] = field(default_factory=list)  # msg_ids with another text in the file

    @property
    def labels(self) -> dict[str, str]:
        """The labels in the file by msg_id; rows without one are left out."""
        return {row["msg_id"].strip(): row["label"] for row in self.rows if row["label"].strip()}


@dataclass(frozen=True)
class Pulled:
    """Result of a pull."""

    tied: list[str]  # msg_ids on which annotators are tied
    agreements: list[Agreement]
    stored: LabelImport
    skipped: Counter[str]  # annotations that are not in the store, by reason
    merged: Merged | None = None  # of the file, if there is one
    is_written: bool = False  # False if nothing in the file changed


def pull(
    studio: Studio, store: MessageStore, path: Path | None = None, *, is_sample: bool = False
) -> Pulled:
    """Store the labels of both projects, and merge them into the CSV at `path`, if there is one.

    The projects are those of the sample chat if it `is_sample`.

    Labels of the audit take precedence; in the store they are ground truth. The file is created if
    need be, replaced atomically, and only if it changes.
    Raises `InvalidLabels`, `LabelStudioUnavailable`, StoreUnavailable and `OSError`.
    """
    columns, rows = _read(path) if path else ([], [])
    names = studio.annotators()
    first, audit = (
        _export(studio, is_sample=is_sample, is_audit=is_audit) for is_audit in (False, True)
    )
    decided, audited = _decisions(first, names), _decisions(audit, names)
    labels, tied = resolve(decided, audited)
    merged = merge(columns, rows, labels) if path else None
    if path and merged:
        refuse_other_messages(merged, path)
    report = ReadReport()
    given = [*stored_labels(first, names, report), *stored_labels(audit, names, report)]
    stored = store.import_labels(given, given_key(STUDIO))
    pulled = Pulled(tied, agreements(decided), stored, report.skipped)
    if not path or not merged:
        return pulled
    is_written = merged.rows != rows or not path.exists()
    if is_written:
        _write(merged, path)
    return replace(pulled, merged=merged, is_written=is_written)


def refuse_other_messages(merged: Merged, path: Path) -> None:
    """Raise `InvalidLabels` if most rows with a labelled message's identifier are another message.

    It is the file of another chat then, where messages are numbered alike.
    """
    same, other = merged.confirmed + len(merged.changed), len(merged.other_text)
    if other > same:
        raise InvalidLabels(
            f"{path} has labels of other messages: of {same + other:,} labelled here and there,"
            f" {other:,} have another text; name a file for this chat"
        )


def stored_labels(
    export: Export, names: Mapping[str, str], report: ReadReport
) -> list[LabelledMessage]:
    """Return the labels in an export, one for each annotation; those of an audit as ground truth.

    `names` are annotators' e-mail addresses by number. Raises `InvalidLabels`.
    """
    with export.errors():
        given = studio_labels(export.tasks, report, Defaults(who=STUDIO, origin=STUDIO))
    return [
        replace(
            each,
            who=names.get(each.who, each.who),
            is_ground_truth=each.is_ground_truth or export.is_audit,
        )
        for each in given
    ]


def resolve(
    decided: Iterable[Decision], audited: Iterable[Decision] = ()
) -> tuple[list[Label], list[str]]:
    """Return the label of each message that has one, and the msg_ids of ties.

    Of two decisions on one message the one of an audit counts, and then the later in `decided`.
    Messages with the same msg_id and different texts, for example of two chats, are two messages.
    Raises `InvalidLabels` for a choice that is not a label.
    """
    checked = {_message(decision): decision for decision in audited}
    latest = {_message(decision): decision for decision in decided} | checked
    labels, tied = [], []
    for message, decision in latest.items():
        identifier, _text = message
        if decision.label is None:
            tied.append(identifier)
            continue
        label = parse_label(decision.label)
        if label is None:
            raise InvalidLabels(
                f"msg_id {quote(identifier)} is labelled {quote(decision.label)}, "
                "neither positive nor negative: was the labelling configuration changed?"
            )
        votes = decision.votes.items()
        majority = {by: vote.when for by, vote in votes if parse_label(vote.label) == label}
        when = max(majority.values()).astimezone(UTC)
        labels.append(
            Label(
                msg_id=identifier.strip(),
                msg=decision.row.get("msg", ""),
                label=label,
                annotator=" ".join(sorted(majority)),
                labeled_at=when.isoformat(timespec="seconds"),
                is_ground_truth=message in checked,
            )
        )
    return labels, tied


def _message(decision: Decision) -> tuple[str, str]:
    return decision.row["msg_id"], fingerprint(decision.row.get("msg", ""))


def merge(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], labels: Sequence[Label]
) -> Merged:
    """Return `rows` with `labels` merged by msg_id, and new rows appended.

    Rows and columns are never removed. A row whose text differs from the label's is not changed.
    Labels of an audit are marked in a column ground_truth. New rows get the subset `train` if there
    are subsets, so that the test subset stays the same.
    """
    added = [*COLUMNS, GROUND_TRUTH] if any(each.is_ground_truth for each in labels) else COLUMNS
    merged = Merged(
        [*columns, *(name for name in added if name not in columns)], [dict(row) for row in rows]
    )
    by_id = {row["msg_id"].strip(): row for row in merged.rows}
    for label in labels:
        given = {"annotator": label.annotator, "labeled_at": label.labeled_at}
        if label.is_ground_truth:
            given[GROUND_TRUTH] = "1"
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
    """Return the agreement of each pair of annotators with enough messages in common."""
    given: dict[str, dict[Hashable, bool]] = {}
    for decision in decided:
        for by, vote in decision.votes.items():
            if (label := parse_label(vote.label)) is not None:
                given.setdefault(by, {})[_message(decision)] = label == 1
    return agreement.agreements(given, FEWEST_COMMON)


def _export(studio: Studio, *, is_sample: bool, is_audit: bool) -> Export:
    title = project_title(is_sample=is_sample, is_audit=is_audit)
    project = studio.find(title)
    tasks = [] if project is None else studio.export(project)
    return Export(title, is_audit, studio.url, tasks)


def _decisions(export: Export, names: Mapping[str, str]) -> list[Decision]:
    """Return the decisions of a project, with annotators' e-mail addresses."""
    with export.errors():
        decided = decisions(export.tasks)
    return [
        Decision(
            row={name: storable(value) for name, value in decision.row.items()},
            votes={names.get(by, by): vote for by, vote in decision.votes.items()},
            label=decision.label,
        )
        for decision in decided
    ]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and rows of a file; none if it does not exist."""
    if not path.exists():
        return [], []
    columns, rows, problems = read_table(path, InvalidLabels)
    if absent := [name for name in COLUMNS[:3] if name not in columns]:
        problems.append(f"missing columns: {', '.join(absent)}")
    else:
        ids = Counter(row["msg_id"].strip() for row in rows)
        if twice := [quote(name) for name, count in ids.items() if count > 1]:
            problems.append(f"msg_id given twice: {first_few(twice)}")
    if problems:
        raise InvalidLabels(f"{path}: {'; '.join(problems)}; correct the file and pull again")
    return columns, [{name: row[name] for name in columns} for row in rows]


def _write(merged: Merged, path: Path) -> None:
    with open_atomically(path) as file:
        table = csv_writer(file)
        table.writerow(merged.columns)
        table.writerows([row.get(name, "") for name in merged.columns] for row in merged.rows)
