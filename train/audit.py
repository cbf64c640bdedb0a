"""`python -m train.audit`: list the labels that look wrong, for a person to check.

The table suggests other labels and changes none.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.files import UnwritableFile, open_atomically
from feedsieve.text import fingerprint
from train.classifier.calibration import best_threshold
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.evaluation.label_audit import COLUMNS, audit, suspects, what_if

FILE = "audit.csv"
_FORMULA_SIGNS = ("=", "+", "-", "@")


class InvalidScores(FeedsieveError, ValueError):
    """Scores that do not fit the labelled messages."""


def read_scores(path: Path, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the score of each row of `frame`, (n,), NaN where there is none.

    The file is CSV with `msg_id` and `score` (0 to 1). If it has `fingerprint`, of the text that
    was scored, the text must be unchanged. Other columns are ignored.
    Raises `InvalidScores` with every problem, and `OSError`.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        ).fillna("")
    except ValueError as error:  # base of pandas' errors, and raised for text that is not UTF-8
        raise InvalidScores(f"{path}: not CSV in UTF-8: {str(error).strip()}") from error
    if absent := [name for name in ("msg_id", "score") if name not in table]:
        columns = first_few([quote(name) for name in table.columns])
        raise InvalidScores(
            f"{path}: missing columns: {', '.join(absent)} (the file has {columns})"
        )
    if table.empty:
        raise InvalidScores(f"{path}: the file has no scores")
    ids = table["msg_id"].str.strip()
    values = pd.to_numeric(table["score"], errors="coerce")
    texts = dict(zip(frame["msg_id"], frame["msg"], strict=True))
    wrong = {
        "msg_id is given before": ids[ids.duplicated()],
        "msg_id is not among the labelled messages": ids[~ids.isin(texts)],
        "score is not a number between 0 and 1, of msg_id": ids[~values.between(0, 1)],
    }
    if "fingerprint" in table:
        current = ids.map(lambda name: fingerprint(texts[name]) if name in texts else "")
        changed = ids.isin(texts) & (current != table["fingerprint"].str.strip())
        wrong["text has changed since it was scored, of msg_id"] = ids[changed]
    problems = [
        f"{problem} in {len(names):,} row(s): {first_few([quote(name) for name in names])}"
        for problem, names in wrong.items()
        if len(names)
    ]
    if problems:
        raise InvalidScores(f"{path}: " + "\n  ".join(["not the scores of this data:", *problems]))
    return frame["msg_id"].map(dict(zip(ids, values, strict=True))).to_numpy(np.float64)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table of `audit` to `path` atomically.

    `read_labeled` reads msg_id, msg and label back unchanged. Texts are not escaped, so a
    spreadsheet takes those that `formulas` counts for formulas, unless it imports every column as
    text. The byte order mark makes spreadsheets read UTF-8. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = table[COLUMNS].assign(
        suggested_label=table["suggested_label"].astype("string").fillna(""),
        score=table["score"].map("{:.6f}".format),
        quality=table["quality"].map("{:.6f}".format),
    )
    with open_atomically(path, "utf-8-sig") as file:
        csv.writer(file).writerows([COLUMNS, *cells.itertuples(index=False)])


def formulas(table: pd.DataFrame) -> int:
    """Return the number of rows with an id or a text that looks like a spreadsheet formula."""
    cells = table[["msg_id", "msg", "related"]]
    return int(cells.map(lambda cell: cell.lstrip().startswith(_FORMULA_SIGNS)).any(axis=1).sum())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    # The file of scores decides whether there are enough rows of both labels.
    return run_command("audit", lambda: _run(options), options.scores)


def _run(options: argparse.Namespace) -> None:
    out = options.out
    if out.resolve() in (options.data.resolve(), options.scores.resolve()):
        raise UnwritableFile(f"{out} is an input; name another file to write")
    if out.exists() and not options.force:
        raise UnwritableFile(f"{out} exists and was not changed; --force replaces it")
    frame = read_labeled(options.data)
    scores = read_scores(options.scores, frame)
    scored = ~np.isnan(scores)
    if not scored.all():
        print(f"{(~scored).sum():,} of {len(frame):,} messages have no score and are not audited")
    frame, scores = frame[scored].reset_index(drop=True), scores[scored]
    table = audit(frame, scores, near_duplicate_groups(frame["msg"].tolist()))
    write_csv(table, out)
    conflicts = int((table["related"] != "").sum())
    print(
        f"{len(table):,} of {len(frame):,} labels look wrong, {conflicts:,} of them contradict"
        " near-duplicates\n\n"
        "figures if the first k were wrong (an upper bound: the scores choose them):\n"
        "     k      F1  average precision"
    )
    labels, threshold = frame["label"], best_threshold(frame["label"], scores)
    for row in what_if(labels, scores, suspects(table), threshold):
        print(f"{row['flipped']:6,} {row['f1']:7.4f} {row['average_precision']:18.4f}")
    print(f"\nsee {out}")
    if count := formulas(table):
        print(
            f"{count:,} of its rows have text that begins with {' '.join(_FORMULA_SIGNS)}, which a"
            " spreadsheet runs as a formula: import every column as text instead of opening it"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.audit",
        description="List the labels that look wrong, with reasons: those that out-of-fold scores"
        " contradict, and those that near-duplicates contradict. No label is changed.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="the training data"
    )
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="HELD_OUT.csv",
        help="out-of-fold scores (msg_id,score), as training writes them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reports") / FILE,
        metavar="AUDIT.csv",
        help="the list (%(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace AUDIT.csv if it exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
