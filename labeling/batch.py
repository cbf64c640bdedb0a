"""A batch: the CSV of messages that are to be labelled next."""

import csv
from dataclasses import dataclass
from pathlib import Path

from feedsieve.files import open_whole
from feedsieve.text import normalise, storable
from train.data import InvalidData, read_csv, read_text
from train.validation import PLACE, quote, some

COLUMNS = ("msg_id", "msg", "score", "model")


class BadBatch(ValueError):
    """A file that cannot be read as a batch; says which, and every problem found in it."""


@dataclass(frozen=True)
class Item:
    """A message to label, and what is known of it already."""

    msg_id: str
    msg: str
    score: float | None = None  # 0 to 1
    model: str = ""  # the tag of the classifier whose score it is, if that is known
    reason: str = ""  # why its label is doubted, if it has one


def read_table(
    path: Path, failure: type[ValueError]
) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns, rows and problems of a CSV. Raises `failure` if it is none."""
    try:
        return read_csv(read_text(path))
    except InvalidData as error:
        raise failure(f"{path}: {some(error.problems)}") from error
    except ValueError as error:
        raise failure(f"{path}: {error}") from error


def read_batch(path: Path) -> list[Item]:
    """Return the messages of a CSV with `msg_id,msg` and perhaps `score`, `model` and `reason`.

    Other columns are left. Raises `BadBatch`.
    """
    columns, rows, problems = read_table(path, BadBatch)
    if absent := [name for name in COLUMNS[:2] if name not in columns]:
        have = some([quote(name) for name in columns])
        problems.append(f"missing columns: {', '.join(absent)} (the file has {have})")
        raise BadBatch(f"{path}: " + "; ".join(problems))
    items = []
    for row in rows:
        cells = {name: storable(value) for name, value in row.items()}
        score, wrong = _score(cells.get("score", ""))
        if not cells["msg_id"].strip() or not normalise(cells["msg"]):
            wrong = "msg_id or msg is empty"
        if wrong:
            problems.append(f"{row[PLACE]}: {wrong}")
        else:
            model, reason = cells.get("model", ""), cells.get("reason", "")
            items.append(Item(cells["msg_id"].strip(), cells["msg"], score, model, reason))
    if problems:
        raise BadBatch(f"{path}: {some(problems)}")
    return items


def write_batch(items: list[Item], path: Path) -> None:
    """Write a batch that `read_batch` reads, whole or not at all. Raises `OSError`."""
    with open_whole(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(
            (item.msg_id, item.msg, "" if item.score is None else f"{item.score:.6f}", item.model)
            for item in items
        )


def _score(cell: str) -> tuple[float | None, str]:
    """Return the score in a cell, None for none, and what is wrong with it."""
    if not cell.strip():
        return None, ""
    try:
        score = float(cell)
    except ValueError:
        score = -1.0
    return (score, "") if 0 <= score <= 1 else (None, f"score is {quote(cell)}, not from 0 to 1")
