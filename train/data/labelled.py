"""Read labelled messages from CSV and from Label Studio's exports."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from feedsieve.text import storable
from train.data import label_studio
from train.data.validation import PLACE, InvalidData, first_few, quote, validate

_COLUMNS = ["msg_id", "msg", "label", "subset", "labeled_at"]


def read_labeled(path: Path | str) -> pd.DataFrame:
    """Return labelled messages with `msg_id`, `msg` (text) and `label` (0 or 1).

    Reads CSV with these columns, and Label Studio's CSV, JSON and JSON-MIN exports. A label in the
    file is 0, 1, negative or positive in any case. Two more columns are returned if the file has
    them: `subset`, train or test, and `labeled_at`, in UTC, NaT where it is unknown.
    Raises `InvalidData` with every problem and its place in the file.
    """
    path = Path(path)
    columns, rows, problems = read_rows(path)
    present = {name for row in rows for name in row} if rows else set(columns)
    names = [name for name in _COLUMNS if name in present]
    cells = [[storable(row[name]) if name in row else "" for name in names] for row in rows]
    frame = pd.DataFrame(cells, columns=names, dtype=str)
    frame[PLACE] = pd.Series([row[PLACE] for row in rows], dtype=str)
    return validate(frame, path, problems)


def read_rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]], list[str]]:
    """Return columns, rows as text, and problems of a file in one of `read_labeled`'s formats.

    The values are not checked. Raises `InvalidData` for another format.
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


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file without its byte order mark. Raises `InvalidData`."""
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
        problem = f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}"
        raise InvalidData(path, [problem]) from error


def read_csv(text: str) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns, the rows with their places, and problems with the table's shape.

    Raises `ValueError` for text that is not CSV.
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
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        problems.append(f"columns given twice: {first_few([quote(name) for name in repeated])}")
    if uneven:
        problems.append(f"rows of other than {len(columns)} fields: {first_few(uneven)}")
    return columns, rows, problems
