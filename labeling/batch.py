"""A batch: the CSV of messages to label next."""

from dataclasses import dataclass
from pathlib import Path

from feedsieve.csv_writing import csv_writer
from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.files import open_atomically
from feedsieve.sources.columns import PLACE
from feedsieve.text import normalise, storable
from train.data import label_tables
from train.data.validation import InvalidData

COLUMNS = ("msg_id", "msg", "score", "model", "prediction")
_OPTIONAL = ("model", "reason", "kind", "neighbours")


class InvalidBatch(FeedsieveError, ValueError):
    """A file that cannot be read as a batch; the message names it and its problems."""


@dataclass(frozen=True)
class Item:
    """A message to label, with a model's score if there is one."""

    msg_id: str
    msg: str
    score: float | None = None  # 0 to 1
    model: str = ""  # tag of the classifier that gave the score, if known
    reason: str = ""  # to doubt its label, if it has one
    kind: str = ""  # what it has in common with others that are doubted
    neighbours: str = ""  # similar messages, a line each

    @property
    def choice(self) -> str | None:
        """The more likely label, if there is a score."""
        if self.score is None:
            return None
        return "positive" if self.score >= 0.5 else "negative"

    @property
    def prediction(self) -> str:
        """The prediction as people read it beside the message."""
        if self.score is None:
            return "prediction: none"
        by = self.model or "an unknown model"
        return f"prediction: {self.choice}, score {self.score:.2f} by {by}"

    @property
    def explanation(self) -> str:
        """Reasons and similar messages, for somebody who checks the label."""
        lines = [line for line in (self.reason, self.kind) if line]
        if self.neighbours:
            lines += ["", "similar messages:", self.neighbours]
        return "\n".join(lines)


def read_table(
    path: Path, failure: type[ValueError]
) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns, rows and problems of a CSV. Raises `failure` if it is not a CSV."""
    try:
        return label_tables.read_table(path)
    except InvalidData as error:
        raise failure(f"{path}: {first_few(error.problems)}") from error


def read_batch(path: Path) -> list[Item]:
    """Return the messages of a CSV with `msg_id,msg`, a batch or the list of an audit.

    Optional columns are the other fields of `Item`; more are ignored. Raises `InvalidBatch`.
    """
    columns, rows, problems = read_table(path, InvalidBatch)
    if absent := [name for name in COLUMNS[:2] if name not in columns]:
        have = first_few([quote(name) for name in columns])
        problems.append(f"missing columns: {', '.join(absent)} (the file has {have})")
        raise InvalidBatch(f"{path}: " + "; ".join(problems))
    items = []
    for row in rows:
        cells = {name: storable(value) for name, value in row.items()}
        score, wrong = _score(cells.get("score", ""))
        if not cells["msg_id"].strip() or not normalise(cells["msg"]):
            wrong = "msg_id or msg is empty"
        if wrong:
            problems.append(f"{row[PLACE]}: {wrong}")
        else:
            more = {name: cells.get(name, "") for name in _OPTIONAL}
            items.append(Item(cells["msg_id"].strip(), cells["msg"], score, **more))
    if problems:
        raise InvalidBatch(f"{path}: {first_few(problems)}")
    return items


def write_batch(items: list[Item], path: Path) -> None:
    """Write a batch atomically, as `read_batch` reads it. Raises `OSError`."""
    with open_atomically(path) as file:
        table = csv_writer(file)
        table.writerow(COLUMNS)
        table.writerows(
            (item.msg_id, item.msg, _cell(item.score), item.model, item.prediction)
            for item in items
        )


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.6f}"


def _score(cell: str) -> tuple[float | None, str]:
    """Return the score in a cell, or None, and the problem with it, if any."""
    if not cell.strip():
        return None, ""
    try:
        score = float(cell)
    except ValueError:
        score = -1.0
    return (score, "") if 0 <= score <= 1 else (None, f"score is {quote(cell)}, not from 0 to 1")
