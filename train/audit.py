"""`python -m train.audit`: which labels look wrong, and why, for a person to look at again.

A person's label is never changed here: the table keeps it as it is and suggests another beside it.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import ArrayLike, NDArray

from feedsieve.files import UnwritableFile, open_whole
from feedsieve.text import fingerprint, normalise
from train.data import InvalidData, near_duplicate_groups, read_labeled
from train.duplicates import masked
from train.evaluate import best_threshold, evaluate
from train.failures import in_one_line
from train.validation import quote, some

FILE = "audit.csv"
COLUMNS = ["msg_id", "msg", "label", "suggested_label", "score", "quality", "reason", "related"]
MOST_RELATED = 20  # near-duplicates named beside a message; the reason counts them all
_NAMES = ("negative", "positive")
_FORMULA_SIGNS = ("=", "+", "-", "@")
# How near near-duplicates are, the nearest first. A group reads all numbers as the same one, so
# offers at different prices share it, and may well have different labels.
_LIKENESS = (
    "of identical text",
    "different only in numbers (both labels are right if the numbers matter)",
    "of similar text (both labels are right if the difference matters)",
)


class BadScores(ValueError):
    """Scores that are not those of the labelled messages; says which and why."""


def audit(frame: pd.DataFrame, scores: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Return the messages whose label looks wrong, the least credible label first.

    `frame` has the columns `msg_id`, `msg` and `label`, and n rows. `scores` are probabilities of
    positive, `(n,)`, by models that had not seen the row's label. `groups` are those of
    `near_duplicate_groups`, `(n,)`. A label is listed

    - if the scores speak against it: the other label is at least as probable as it is on average
      where it was given (confident learning; Northcutt, Jiang and Chuang, JAIR 2021);
    - if at least half of the message's group has the other label, whatever the scores say.

    The index holds row numbers of `frame`; the columns are `COLUMNS`. `label` is as it was.
    `suggested_label` is the other one, missing where all that speaks for it is a tie. `score` is
    the row's, and `quality` the probability of its label, 0 to 1. `reason` is for people. `related`
    are the msg_ids of up to 20 near-duplicates with the other label, the nearest first, separated
    by spaces.

    Raises `ValueError` for lengths that differ, values out of range, or a label that never occurs.
    """
    labels, scores, groups = _checked(frame["label"], scores, groups)
    probabilities = np.column_stack([1 - scores, scores])
    # Of cleanlab's filters this one cuts by probability. Its default cuts by an estimated count, so
    # it may list one of two copies with the same score; and of labels turned round on purpose it
    # found a tenth more, but listed a third more. Two labels are not worth a pool of processes.
    doubted = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    members = {row: rows for rows in _mixed_groups(labels, groups) for row in rows.tolist()}
    texts = {row: normalise(frame["msg"].iat[row]).lower() for row in members}
    rows, cells = [], []
    for row in np.lexsort((~doubted, quality)).tolist():
        group = members.get(row, np.array([row]))
        others = group[labels[group] != labels[row]].tolist()
        if not doubted[row] and 2 * len(others) < len(group):
            continue
        likeness = {other: _likeness(texts[row], texts[other]) for other in others}
        others.sort(key=lambda other: likeness[other])
        is_wrong = doubted[row] or 2 * len(others) > len(group)
        rows.append(row)
        cells.append(
            (
                1 - labels[row] if is_wrong else None,
                _reason(labels[row], quality[row], doubted[row], likeness, len(group)),
                " ".join(frame["msg_id"].iloc[others[:MOST_RELATED]]),
            )
        )
    added = pd.DataFrame(cells, columns=["suggested_label", "reason", "related"], index=rows)
    table = frame.reset_index(drop=True).assign(score=scores, quality=quality).loc[rows]
    return table.join(added).astype({"suggested_label": "Int64"})[COLUMNS]


def what_if(
    labels: ArrayLike,
    scores: ArrayLike,
    suspects: ArrayLike,
    threshold: float,
    tops: Sequence[int] = (10, 25, 50, 100),
) -> list[dict[str, float]]:
    """Return what the metrics would be if the first k suspects had the other label.

    A row has `flipped` (k), `f1` and `average_precision`. There is one for k = 0, for each of
    `tops`, and for all suspects in place of what is beyond them. `labels` (0 or 1) and `scores`
    (0 to 1) are `(n,)`; `suspects` are row numbers, the most suspect first. Labels are flipped for
    this alone; scores and `threshold` stay.

    This is optimistic: the model's own scores chose the flips, so that each one turns an error of
    the model into a success, whether the label was wrong or the model was. It is what the metrics
    would be if a person agreed with the model on every one of them, and no estimate of what they
    will be.

    Raises `ValueError` as `evaluate` does, and for suspects that repeat or are no rows.
    """
    labels = np.array(labels)  # a copy, to flip
    suspects = np.asarray(suspects, dtype=np.int64)
    is_row = (suspects >= 0) & (suspects < len(labels))
    if not is_row.all() or len(np.unique(suspects)) < len(suspects):
        raise ValueError(f"suspects must be row numbers below {len(labels)}, each once")
    rows: list[dict[str, float]] = []
    done = 0
    for count in sorted({min(max(top, 0), len(suspects)) for top in (0, *tops)}):
        flips = suspects[done:count]
        labels[flips] = 1 - labels[flips]
        metrics = evaluate(labels, scores, threshold)
        kept = {name: metrics[name] for name in ("f1", "average_precision")}
        rows.append({"flipped": count, **kept})
        done = count
    return rows


def suspects(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the row numbers for which `audit` suggests another label, the most suspect first."""
    return table.index[table["suggested_label"].notna()].to_numpy(np.int64)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table of `audit` to `path`, whole or not at all, in place of what is there.

    `read_labeled` reads msg_id, msg and label back as they were, if the rows are enough to train
    on. Texts are not altered, so one that begins with = + - or @ is a formula to a spreadsheet that
    merely opens the file: import it with every column as text. `formulas` counts such rows. UTF-8
    begins with a byte order mark, without which spreadsheets take it for another encoding.
    Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = table[COLUMNS].assign(
        suggested_label=table["suggested_label"].astype("string").fillna(""),
        score=table["score"].map("{:.6f}".format),
        quality=table["quality"].map("{:.6f}".format),
    )
    with open_whole(path, "utf-8-sig") as file:
        csv.writer(file).writerows([COLUMNS, *cells.itertuples(index=False)])


def formulas(table: pd.DataFrame) -> int:
    """Return how many rows have an id or a text that a spreadsheet takes for a formula."""
    cells = table[["msg_id", "msg", "related"]]
    return int(cells.map(lambda cell: cell.lstrip().startswith(_FORMULA_SIGNS)).any(axis=1).sum())


def read_scores(path: Path, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the score of each row of `frame`, `(n,)`, NaN for a message that has none.

    The file is CSV with `msg_id` and `score` (0 to 1). If it has `fingerprint`, of the text that
    was scored, then the text must still be the same; other columns are left.
    Raises `BadScores`, naming every problem, and `OSError`.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        ).fillna("")
    except ValueError as error:  # pandas' own errors are some, and so is text that is not UTF-8
        raise BadScores(f"{path}: not CSV in UTF-8: {str(error).strip()}") from error
    if absent := [name for name in ("msg_id", "score") if name not in table]:
        have = some([quote(name) for name in table.columns])
        raise BadScores(f"{path}: missing columns: {', '.join(absent)} (the file has {have})")
    if table.empty:
        raise BadScores(f"{path}: there is no score in it")
    ids = table["msg_id"].str.strip()
    values = pd.to_numeric(table["score"], errors="coerce")
    text = dict(zip(frame["msg_id"], frame["msg"], strict=True))
    wrong = {
        "msg_id is given before": ids[ids.duplicated()],
        "msg_id is not among the labelled messages": ids[~ids.isin(text)],
        "score is not a number between 0 and 1, of msg_id": ids[~values.between(0, 1)],
    }
    if "fingerprint" in table:
        now = ids.map(lambda name: fingerprint(text[name]) if name in text else "")
        changed = ids.isin(text) & (now != table["fingerprint"].str.strip())
        wrong["another text was scored than the labelled one, of msg_id"] = ids[changed]
    problems = [
        f"{what} in {len(names):,} row(s): {some([quote(name) for name in names])}"
        for what, names in wrong.items()
        if len(names)
    ]
    if problems:
        raise BadScores(f"{path}: " + "\n  ".join(["not the scores of this data:", *problems]))
    return frame["msg_id"].map(dict(zip(ids, values, strict=True))).to_numpy(np.float64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the audit and say what is in it; return 0, or 1 after saying on stderr what failed."""
    options = _parser().parse_args(arguments)
    return in_one_line(
        "audit",
        lambda: _run(options.data, options.scores, options.out, options.force),
        (InvalidData, BadScores, UnwritableFile),
        options.scores,  # that are all of one label, say
    )


def _run(data: Path, held_out: Path, out: Path, force: bool) -> None:
    if out.resolve() in (data.resolve(), held_out.resolve()):
        raise UnwritableFile(f"{out} is a file to read; name another one to write")
    if out.exists() and not force:  # somebody may have worked on it
        raise UnwritableFile(f"{out} is there already and was left as it is; --force replaces it")
    frame = read_labeled(data)
    scores = read_scores(held_out, frame)
    known = ~np.isnan(scores)
    if not known.all():
        print(f"{(~known).sum():,} of {len(frame):,} messages have no score and are not audited")
    frame, scores = frame[known].reset_index(drop=True), scores[known]
    table = audit(frame, scores, near_duplicate_groups(frame["msg"].tolist()))
    write_csv(table, out)
    conflicts = int((table["related"] != "").sum())
    print(
        f"{len(table):,} of {len(frame):,} labels look wrong, {conflicts:,} of them beside "
        "near-duplicates with the other label\n\n"
        "if the first k were wrong (optimistic: the scores that judge the labels chose them):\n"
        "     k      F1  average precision"
    )
    labels, threshold = frame["label"], best_threshold(frame["label"], scores)
    for row in what_if(labels, scores, suspects(table), threshold):
        print(f"{row['flipped']:6,} {row['f1']:7.4f} {row['average_precision']:18.4f}")
    print(f"\nsee {out}")
    if count := formulas(table):
        print(
            f"{count:,} of its rows have text that begins with {' '.join(_FORMULA_SIGNS)}, which a "
            "spreadsheet runs as a formula: import every column as text, do not just open the file"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.audit",
        description="List the labels that look wrong, with reasons: those that a model which had "
        "not seen them speaks against, and those that near-duplicates contradict. No label is "
        "changed.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="what was trained on"
    )
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="HELD_OUT.csv",
        help="msg_id,score of models that had not seen the message, as training writes it",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reports") / FILE,
        metavar="AUDIT.csv",
        help="where the list goes (%(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace AUDIT.csv if it is there")
    return parser


def _checked(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    labels, groups = np.asarray(labels), np.asarray(groups)
    scores = np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or not labels.shape == scores.shape == groups.shape:
        raise ValueError(
            "labels, scores and groups must be lists of one length, "
            f"not of shapes {labels.shape}, {scores.shape} and {groups.shape}"
        )
    if set(labels.tolist()) != {0, 1}:
        raise ValueError("an audit needs labels 0 and 1, both of them, and no others")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be between 0 and 1")
    return labels.astype(np.int64), scores, groups


def _mixed_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each group that has both labels."""
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(np.unique(labels[rows])) == 2:
            yield rows


def _likeness(text: str, other: str) -> int:
    """Return which of `_LIKENESS` two near-duplicates are, normalised and in lower case."""
    if text == other:
        return 0
    return 1 if masked(text) == masked(other) else 2


def _reason(
    label: int, quality: float, doubted: bool, likeness: Mapping[int, int], size: int
) -> str:
    """Return why a label is listed, by `likeness` of near-duplicates with the other label.

    `size` is how many near-duplicates there are in all, the message among them.
    """
    given, other = _NAMES[label], _NAMES[1 - label]
    believed, likely = (other, 1 - quality) if doubted else (given, quality)
    finds = f"a model that had not seen this label finds {believed} {min(likely, 0.999):.1%} likely"
    by_score = f"labelled {given}, but {finds}" if doubted else finds
    if not likeness:
        return by_score
    counts = Counter(likeness.values())
    kinds = ", ".join(
        f"{counts[kind]} {name}" for kind, name in enumerate(_LIKENESS) if counts[kind]
    )
    if len(counts) == 1:
        kinds = kinds.partition(" ")[2]
    by_group = f"labelled {other}: {len(likeness)} of {size - 1} near-duplicates, {kinds}"
    return "; ".join([by_score, by_group] if doubted else [by_group, by_score])


if __name__ == "__main__":
    sys.exit(main())
