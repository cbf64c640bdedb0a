"""Read tables of labelled messages: CSV as programs and spreadsheets write it."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from feedsieve.errors import first_few, quote
from feedsieve.message import InvalidFile
from feedsieve.sources.columns import PLACE, ROLES, Repeated, compact, find
from feedsieve.sources.labels.label_studio import is_flat_export
from feedsieve.sources.labels.words import is_unlabelled, parse_label
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_rows import CsvFile
from feedsieve.sources.tables.encodings import detect
from feedsieve.sources.tables.identifiers import are_floats, whole
from feedsieve.text import normalise
from train.data.validation import InvalidData

_log = logging.getLogger(__name__)
_NAMES = {
    compact(name): name
    for name in (
        *("msg_id", "msg", "label", "subset", "labeled_at", "adjudicated"),
        *("score", "model", "reason"),
        *("id", "text", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"),
    )
}
_ROLES = {"msg_id": "id", "msg": "text", "label": "label"}


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark. Raises `InvalidData`."""
    try:
        with detect(path).open(path) as file:
            text = file.read()
    except (InvalidFile, OSError, UnicodeError) as error:
        raise InvalidData(path, [_reason(path, error)]) from error
    if not text.strip():
        raise InvalidData(path, ["the file is empty"])
    return text


def starts_as_json(path: Path) -> bool:
    """Return whether a file begins as JSON. Raises `InvalidData`, also for an empty file."""
    try:
        with detect(path).open(path) as file:
            while (character := file.read(1)).isspace():
                pass
    except (InvalidFile, OSError, UnicodeError) as error:
        raise InvalidData(path, [_reason(path, error)]) from error
    if not character:
        raise InvalidData(path, ["the file is empty"])
    return character in "[{"


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns, the rows with their places, and problems with the table's shape.

    Columns of known names have those of ours: `Message ID` is `msg_id`. How the file was read is
    logged. Raises `InvalidData` for a file that is not CSV.
    """
    report = ReadReport()
    problems: list[str] = []
    rows: list[dict[str, str]] = []
    uneven: list[str] = []
    try:
        file = CsvFile(path, report, _NAMES)
        columns = _columns(file.header, problems)
        for line, row in file.records():
            if len(row) == len(columns):
                if any(row) and row != file.header:
                    rows.append({**dict(zip(columns, row, strict=True)), PLACE: f"line {line}"})
            elif row:
                uneven.append(f"line {line} has {len(row)}")
    except InvalidFile as error:
        raise InvalidData(path, [*problems, _reason(path, error)]) from error
    if uneven:
        problems.append(f"rows of other than {len(columns)} fields: {first_few(uneven)}")
    if rows and "msg_id" in columns and are_floats(row["msg_id"] for row in rows):
        report.note("msg_id: 1.0 is read as 1")
        rows = [{**row, "msg_id": whole(row["msg_id"])} for row in rows]
    for note in report.notes:
        _log.info("%s: %s", path, note)
    return columns, rows, problems


def labelled(rows: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows with a label, each once, and a problem if rows contradict each other.

    What is left out is logged, and so are texts with both labels under different identifiers.
    """
    rows = _named_apart(rows)
    with_label = [row for row in rows if not is_unlabelled(row.get("label", "?"))]
    if unlabelled := len(rows) - len(with_label):
        _log.info("%s rows have no label and are left out", f"{unlabelled:,}")
    first: dict[tuple[str, str], dict[str, str]] = {}
    contradictions: list[str] = []
    repeated = 0
    for row in with_label:
        key = row.get("msg_id", "").strip(), row.get("msg", "")
        before = first.setdefault(key if all(key) else ("", row[PLACE]), row)
        if before is row:
            continue
        if parse_label(before.get("label", "")) == parse_label(row.get("label", "")):
            repeated += 1
        else:
            contradictions.append(
                f"{before[PLACE]} and {row[PLACE]}, msg_id {quote(key[0])}:"
                f" {quote(before['label'])} and {quote(row['label'])}"
            )
    if repeated:
        _log.info("%s rows repeat another one and are left out", f"{repeated:,}")
    warn_of_texts_with_both_labels(first.values())
    if contradictions:
        count = f"{len(contradictions):,} message(s)"
        return [*first.values()], [f"two labels for {count}: {first_few(contradictions)}"]
    return [*first.values()], []


def _named_apart(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows; an identifier that messages of several sources have is after its source."""
    sources: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        sources[row.get("msg_id", "")].add(row.get("source", ""))
    return [
        row | {"msg_id": f"{row['source']}:{row['msg_id']}"}
        if len(sources[row.get("msg_id", "")]) > 1
        else row
        for row in rows
    ]


def warn_of_texts_with_both_labels(rows: Iterable[dict[str, str]]) -> None:
    """Log texts that have both labels under different identifiers."""
    first: dict[str, dict[str, str]] = {}
    places = []
    for row in rows:
        text = normalise(row.get("msg", ""))
        before = first.setdefault(text, row)
        if text and parse_label(before.get("label", "")) != parse_label(row.get("label", "")):
            places.append(f"{before[PLACE]} and {row[PLACE]}")
    if places:
        _log.warning("%d texts have both labels: %s", len(places), first_few(places))


def _columns(header: Sequence[str], problems: list[str]) -> list[str]:
    """Return the names of columns, known ones as ours; append problems."""
    columns = [_NAMES.get(compact(name), name) for name in header]
    is_flat = is_flat_export(columns)
    for name, role in _ROLES.items():
        if name in columns or (is_flat and name == "label"):
            continue
        others = [other for other in ROLES[role] if not (is_flat and other == "id")]
        try:
            index = find(columns, others)
        except Repeated as error:
            problems.append(str(error))
            continue
        if index is not None:
            columns[index] = name
    if repeated := sorted({name for name in columns if name and columns.count(name) > 1}):
        problems.append(f"columns given twice: {first_few([quote(name) for name in repeated])}")
    return columns


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    reason = str(error).removeprefix(str(path)).lstrip(",: ")
    return f"cannot be read: {reason}" if isinstance(error.__cause__, OSError) else reason
