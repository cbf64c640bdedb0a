"""`python -m train.audit`: list the labels that may be wrong, for a person to check.

The most likely come first, with the number of wrong ones to expect so far. No label is changed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedsieve.command import run_command
from feedsieve.csv_writing import csv_writer
from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.files import UnwritableFile, open_atomically
from feedsieve.text import fingerprint
from train.cli.arguments import positive
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.evaluation.label_audit import COLUMNS, LEAST, SCORE, audit, with_neighbours

FILE = "audit.csv"
VIEWS = ("words", "encoder", "neighbours")  # as of train.classifier.stacking
KINDS = 10  # of wrong labels to print
_FORMULA_SIGNS = ("=", "+", "-", "@")


class InvalidScores(FeedsieveError, ValueError):
    """Scores that do not fit the labelled messages."""


def read_views(path: Path, frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return out-of-fold scores by view, (n,) each; NaN where a row of `frame` has none.

    The file is CSV with `msg_id` and `score` (0 to 1), and perhaps the scores of other views, in
    the columns `VIEWS`. If it has `fingerprint`, of the text that was scored, the text must be
    unchanged. Other columns are ignored.
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
    views = {
        name: pd.to_numeric(table[name], errors="coerce")
        for name in (SCORE, *VIEWS)
        if name in table
    }
    texts = dict(zip(frame["msg_id"], frame["msg"], strict=True))
    wrong = {
        "msg_id is given before": ids[ids.duplicated()],
        "msg_id is not among the labelled messages": ids[~ids.isin(texts)],
    }
    for name, values in views.items():
        problem = f"{name} is not a number between 0 and 1, of msg_id"
        wrong[problem] = ids[~values.between(0, 1)]
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
    return {
        name: frame["msg_id"].map(dict(zip(ids, values, strict=True))).to_numpy(np.float64)
        for name, values in views.items()
    }


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
        wrong=table["wrong"].map("{:.4f}".format),
        wrong_so_far=table["wrong_so_far"].map("{:.1f}".format),
    )
    with open_atomically(path, "utf-8-sig") as file:
        csv_writer(file, line_end="\r\n").writerows([COLUMNS, *cells.itertuples(index=False)])


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
    views = read_views(options.scores, frame)
    scored = ~np.isnan(views[SCORE])
    if not scored.all():
        print(f"{(~scored).sum():,} of {len(frame):,} messages have no score and are not audited")
    frame = frame[scored].reset_index(drop=True)
    views = {name: view[scored] for name, view in views.items()}
    groups = near_duplicate_groups(frame["msg"].tolist())
    found = audit(frame, views, groups)
    table = found.table if options.count is None else found.table[: options.count]
    write_csv(with_neighbours(table, frame, views[SCORE], groups), out)
    if checked := len(frame) - found.audited:
        print(f"{checked:,} of the labels were checked before and are not listed")
    print(
        f"{len(found.table):,} of {found.audited:,} labels may be wrong; about"
        f" {found.expected:.0f} of them are\n"
        f"{(found.table['related'] != '').sum():,} have near-duplicates with the other label"
    )
    if len(table) < len(found.table):
        print(f"the first {len(table):,} are listed")
    print("\nfirst  wrong ones to expect")
    for count, wrong in found.progress():
        print(f"{count:5,}  {wrong:20.0f}")
    if found.kinds:
        print("\nwhat they have in common:")
    for kind in found.kinds[:KINDS]:
        print(f"  {kind}")
    print(f"\nsee {out}")
    if count := formulas(table):
        print(
            f"{count:,} of its rows have text that begins with {' '.join(_FORMULA_SIGNS)}, which a"
            " spreadsheet runs as a formula: import every column as text instead of opening it"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.audit",
        description="List the labels that may be wrong, the most likely first, with the number of"
        " wrong ones to expect so far, what they have in common, and reasons: out-of-fold scores,"
        " near-duplicates and similar messages. No label is changed.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="the training data"
    )
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="HELD_OUT.csv",
        help="out-of-fold scores (msg_id,score and perhaps words,encoder,neighbours), as training"
        " writes them",
    )
    parser.add_argument(
        "--count",
        type=positive,
        metavar="N",
        help="list the first N labels, such as one round of checking (default: all with a"
        f" probability of at least {LEAST:.0%}% to be wrong)",
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
