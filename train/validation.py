"""What labelled messages must be before anything is trained on them, and how to say what is not."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from feedsieve.message import in_utc
from feedsieve.text import normalise

MINIMUM_ROWS = 20
MINIMUM_PER_LABEL = 5
PLACE = " place"  # the column that says where in the file a row came from; no file has its space
SUBSETS = ("train", "test")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "negative": 0, "positive": 1}
_SHOWN = 5
_SHOWN_CHARACTERS = 60


class InvalidData(ValueError):
    """Labelled messages that cannot be trained on; the message lists every problem found."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        """`problems` are whole clauses without a full stop; `path` is the file they are in."""
        self.path = path
        self.problems = tuple(problems)
        super().__init__(f"{path}: " + "\n  ".join(["cannot train on this:", *self.problems]))

    def __reduce__(self) -> tuple[type["InvalidData"], tuple[Path, tuple[str, ...]]]:
        return type(self), (self.path, self.problems)


def parse_label(value: str) -> int | None:
    """Return 0 or 1 for a label as people and tools write it, None for anything else."""
    return _LABELS.get(value.strip().lower())


def parse_time(value: str) -> datetime | None:
    """Return a time as ISO 8601 writes it, in UTC, which it is in if no zone is said.

    None for an empty string. Raises ValueError for anything else.
    """
    return in_utc(datetime.fromisoformat(value.strip())) if value.strip() else None


def quote(value: object) -> str:
    """Return `value` shortened and quoted, so that it stays on one line of a log."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def some(values: Sequence[str]) -> str:
    """Return at most five of `values`, and how many more there are."""
    more = [f"and {len(values) - _SHOWN:,} more"] if len(values) > _SHOWN else []
    return "; ".join([*values[:_SHOWN], *more])


def validate(frame: pd.DataFrame, path: Path, problems: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of `frame` as `read_labeled` promises them.

    `frame` holds text as it stands in the file, and says in column `place` where that is.
    `problems` were found while reading and are reported with those found here.
    Raises `InvalidData` naming every problem.
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
        found += _lacking(frame)
    if found:
        raise InvalidData(path, found)
    return frame.drop(columns=PLACE).reset_index(drop=True)


def _is_time(value: str) -> bool:
    try:
        parse_time(value)
    except (ValueError, OverflowError):  # the latter: in UTC it would be before the year 1
        return False
    return True


def _schema(given: Iterable[str]) -> pa.DataFrameSchema:
    columns = {
        "msg_id": pa.Column(
            checks=[
                pa.Check(lambda ids: ids.str.strip() != "", error="empty"),
                pa.Check(lambda ids: ~ids.str.strip().duplicated(), error="given before"),
            ]
        ),
        "msg": pa.Column(
            checks=pa.Check(lambda texts: texts.map(normalise) != "", error="empty"),
        ),
        "label": pa.Column(
            checks=pa.Check(
                lambda labels: labels.map(parse_label).notna(),
                error="not 0, 1, positive or negative",
            )
        ),
    }
    optional = {
        "subset": pa.Column(
            checks=pa.Check(
                lambda subsets: subsets.str.strip().str.lower().isin(SUBSETS),
                error="neither train nor test",
            )
        ),
        "labeled_at": pa.Column(
            checks=pa.Check(
                lambda times: times.map(_is_time), error="not a time such as 2026-11-25T08:30:00Z"
            )
        ),
    }
    columns |= {name: column for name, column in optional.items() if name in given}
    return pa.DataFrameSchema(columns)


def _describe(frame: pd.DataFrame, failures: pd.DataFrame) -> list[str]:
    """Return one clause for each check that failed, from pandera's table of failures."""
    clauses = []
    absent = failures.loc[failures["check"] == "column_in_dataframe", "failure_case"]
    if len(absent):
        have = some([quote(name) for name in frame.columns if name != PLACE])
        clauses.append(f"missing columns: {', '.join(absent)} (the file has {have or 'none'})")
    of_rows = failures[failures["index"].notna()].sort_values("index", kind="stable")
    for (column, check), cases in of_rows.groupby(["column", "check"], sort=False):
        rows = cases["index"].astype(int).tolist()
        places = [
            f"{_place(frame, row)}: {quote(value)}"
            for row, value in zip(rows, cases["failure_case"], strict=True)
        ]
        clauses.append(f"{column} {check} in {len(places):,} row(s): {some(places)}")
    return clauses


def _place(frame: pd.DataFrame, row: int) -> str:
    place = str(frame.at[row, PLACE])
    return f"{place}, msg_id {quote(frame.at[row, 'msg_id'])}" if "msg_id" in frame else place


def _lacking(frame: pd.DataFrame) -> list[str]:
    """Return what there is too little of, if anything, in a frame of sound rows."""
    if len(frame) < MINIMUM_ROWS:
        return [f"too few rows: {len(frame)}, and at least {MINIMUM_ROWS} are needed"]
    counts = frame["label"].value_counts()
    clauses = []
    for label, name in ((1, "positive"), (0, "negative")):
        count = int(counts.get(label, 0))
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
                    f"subset {subset} needs rows of both labels, and has "
                    f"{int((labels == 1).sum())} positive and "
                    f"{int((labels == 0).sum())} negative"
                )
    return clauses
