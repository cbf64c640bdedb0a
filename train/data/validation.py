"""Validate labelled messages before training, and report every problem."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.message import in_utc
from feedsieve.sources.columns import PLACE
from feedsieve.sources.labels.words import ALLOWED, is_unlabelled, parse_label
from feedsieve.sources.tables.identifiers import is_shortened
from feedsieve.text import normalise

MINIMUM_ROWS = 20
MINIMUM_PER_LABEL = 5
SUBSETS = ("train", "test")
ADJUDICATED = "adjudicated"
GROUND_TRUTH = "ground_truth"


class InvalidData(FeedsieveError, ValueError):
    """Labelled messages that cannot be used for training; the message lists every problem."""

    def __init__(self, path: Path | str, problems: Sequence[str]) -> None:
        """`problems` are clauses without a full stop, about the file or message store `path`."""
        self.path = path
        self.problems = tuple(problems)
        super().__init__(f"{path}: " + "\n  ".join(["cannot train on this:", *self.problems]))

    def __reduce__(self) -> tuple[type["InvalidData"], tuple[Path | str, tuple[str, ...]]]:
        return type(self), (self.path, self.problems)


def parse_time(value: str) -> datetime | None:
    """Return an ISO 8601 time in UTC, the default zone; None for an empty string.

    Raises ValueError for anything else.
    """
    return in_utc(datetime.fromisoformat(value.strip())) if value.strip() else None


def validate(frame: pd.DataFrame, path: Path | str, problems: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of `frame` in the form that `read_labeled` describes.

    `frame` holds the text of the file's cells, and each row's `PLACE`. `problems` were found while
    reading, and are reported together with those found here. Raises `InvalidData`.
    """
    found = list(problems)
    if "subset" in frame and (frame["subset"].str.strip() == "").all():
        frame = frame.drop(columns="subset")
    try:
        _schema(frame.columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        found += _describe(frame, error.failure_cases)
    else:
        frame = frame.assign(
            msg_id=frame["msg_id"].str.strip(),
            label=frame["label"].map(parse_label).astype("int64"),
        )
        if "subset" in frame:
            frame["subset"] = frame["subset"].str.strip().str.lower()
        if "labeled_at" in frame:
            frame["labeled_at"] = pd.to_datetime(frame["labeled_at"].map(parse_time), utc=True)
        if ADJUDICATED in frame:
            reviewed = frame[ADJUDICATED].map(parse_label)
            frame[ADJUDICATED] = reviewed.fillna(frame["label"]).astype("int64")
        if GROUND_TRUTH in frame:
            frame[GROUND_TRUTH] = frame[GROUND_TRUTH].map(parse_label) == 1
        found += shortages(frame)
    if found:
        raise InvalidData(path, found)
    return frame.drop(columns=PLACE).reset_index(drop=True)


def checked(frame: pd.DataFrame) -> np.ndarray:
    """Return whether somebody has checked a label of `read_labeled`'s frame, (rows,), bool."""
    if GROUND_TRUTH not in frame:
        return np.zeros(len(frame), bool)
    return frame[GROUND_TRUTH].to_numpy(bool)


def _is_time(value: str) -> bool:
    try:
        parse_time(value)
    except ValueError:
        return False
    return True


def _is_label_or_empty(cells: pd.Series) -> pd.Series:
    return cells.map(parse_label).notna() | cells.map(is_unlabelled).astype(bool)


_REQUIRED = ("msg_id", "msg", "label")
# By column and error. Optional columns are checked if present.
_CHECKS: dict[str, dict[str, Callable[[pd.Series], pd.Series]]] = {
    "msg_id": {
        "empty": lambda ids: ids.str.strip() != "",
        "given before": lambda ids: ~ids.str.strip().duplicated(),
        "without its last digits, which a spreadsheet has dropped": lambda ids: (
            ~ids.map(is_shortened).astype(bool)
        ),
    },
    "msg": {"empty": lambda texts: texts.map(normalise) != ""},
    "label": {
        f"not {ALLOWED}": lambda labels: labels.map(parse_label).notna(),
    },
    "subset": {
        "neither train nor test": lambda subsets: subsets.str.strip().str.lower().isin(SUBSETS),
    },
    ADJUDICATED: {f"not {ALLOWED}, nor empty": _is_label_or_empty},
    GROUND_TRUTH: {f"not {ALLOWED}, nor empty": _is_label_or_empty},
    "labeled_at": {
        "not a time such as 2026-11-25T08:30:00Z": lambda times: times.map(_is_time),
    },
}


def _schema(present: Iterable[str]) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        {
            name: pa.Column(
                checks=[pa.Check(check, error=error) for error, check in checks.items()]
            )
            for name, checks in _CHECKS.items()
            if name in _REQUIRED or name in present
        }
    )


def _describe(frame: pd.DataFrame, failures: pd.DataFrame) -> list[str]:
    """Return one clause for each failed check, from pandera's table of failures."""
    clauses = []
    absent = failures.loc[failures["check"] == "column_in_dataframe", "failure_case"]
    if len(absent):
        columns = first_few([quote(name) for name in frame.columns if name != PLACE])
        clauses.append(f"missing columns: {', '.join(absent)} (the file has {columns or 'none'})")
    of_rows = failures[failures["index"].notna()].sort_values("index", kind="stable")
    for (column, check), cases in of_rows.groupby(["column", "check"], sort=False):
        places = [
            f"{_place(frame, int(row))}: {quote(value)}"
            for row, value in zip(cases["index"], cases["failure_case"], strict=True)
        ]
        clauses.append(f"{column} {check} in {len(places):,} row(s): {first_few(places)}")
    return clauses


def _place(frame: pd.DataFrame, row: int) -> str:
    place = str(frame.at[row, PLACE])
    return f"{place}, msg_id {quote(frame.at[row, 'msg_id'])}" if "msg_id" in frame else place


def shortages(frame: pd.DataFrame) -> list[str]:
    """Return a clause for each shortage of rows or labels in a frame of valid rows."""
    if len(frame) < MINIMUM_ROWS:
        return [f"too few rows: {len(frame)}, and at least {MINIMUM_ROWS} are needed"]
    clauses = []
    for label, name in ((1, "positive"), (0, "negative")):
        count = int((frame["label"] == label).sum())
        if count == 0:
            clauses.append(f"only one label: no row is {name}")
        elif count < MINIMUM_PER_LABEL:
            clauses.append(
                f"too few {name} rows: {count}, and at least {MINIMUM_PER_LABEL} are needed"
            )
    if "subset" in frame and not clauses:
        for subset in SUBSETS:
            labels = frame.loc[frame["subset"] == subset, "label"]
            if labels.nunique() < 2:
                clauses.append(
                    f"subset {subset} needs rows of both labels, and has"
                    f" {int((labels == 1).sum())} positive and {int((labels == 0).sum())} negative"
                )
    return clauses
