"""Tables of a cross-validation in Markdown."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from train.data.validation import ADJUDICATED
from train.evaluation.cross_validation import TEST, Results
from train.evaluation.judges import judges, suffix

FIGURES = {
    "f1": "F1",
    "average_precision": "AP",
    "precision_at_20": "P@20",
    "precision_at_100": "P@100",
    "ece": "ECE",
}
_SLICE_FIGURES = ("f1", "average_precision", "ece")


def page(results: Results, command: str) -> str:
    """Return the page of quality figures, which names the `command` that writes it."""
    held_out = np.concatenate([trial.held_out for trial in results.folds])
    labels = results.frame["label"].to_numpy()[held_out]
    return (
        "# Quality\n\n"
        f"Written by `{command}`. The folds are of the {len(labels):,} messages of the training"
        f" part, {int(labels.sum()):,} of them positive. Near-duplicates are always in one fold."
        " Every model chooses its early stopping, calibration and threshold within the part that it"
        " is fitted on.\n\n"
        f"{table(results)}"
    )


def means(results: Results) -> dict[str, float]:
    """Return the mean of each figure over the folds, for candidates that have it in all folds."""
    found = {}
    for candidate, judge in product(results.predictions, judges(results.frame)):
        figures = results.fold_figures(candidate, judge).dropna(axis="columns")
        for name in FIGURES.keys() & figures.columns:
            found[f"{candidate}.{name}{suffix(judge)}"] = float(figures[name].mean())
    return found


def table(results: Results) -> str:
    """Return the figures over the folds, of the test part, and by language and length."""
    lines = [
        f"## {len(results.folds)} folds",
        "",
        "Mean ± standard deviation over the folds. P@20 and P@100 are the share of positives among"
        " the 20 and 100 highest scores of a fold; ECE is the expected calibration error.",
    ]
    for judge in judges(results.frame):
        lines += ["", *_introduction(results, judge), *_head(FIGURES.values())]
        for candidate in results.predictions:
            figures = results.fold_figures(candidate, judge)
            lines.append(_row(candidate, [_spread(figures.get(name)) for name in FIGURES]))
    for trial in results.trials:
        if trial.name == TEST:
            lines += ["", "## Test part"]
            for judge in judges(results.frame):
                lines += ["", *_introduction(results, judge), *_head(FIGURES.values())]
                for candidate in results.predictions:
                    row = results.figures(candidate, trial, judge)
                    lines.append(_row(candidate, [_number(row.get(name)) for name in FIGURES]))
    slices = {candidate: results.slices(candidate) for candidate in results.predictions}
    for kind in ("language", "length"):
        rows = {name: [row for row in slices[name] if row["slice"] == kind] for name in slices}
        lines += ["", f"## By {kind}", "", "Over all folds together: F1, AP and ECE.", ""]
        lines += _head(
            f"{row['name']} ({row['n']}, {row['positives']} positive)"
            for row in next(iter(rows.values()))
        )
        for candidate, found in rows.items():
            cells = [" / ".join(_number(row[name]) for name in _SLICE_FIGURES) for row in found]
            lines.append(_row(candidate, cells))
    return "\n".join(lines) + "\n"


def _introduction(results: Results, judge: str) -> list[str]:
    """Return the line above a table that says whose labels judge, if there are several."""
    if ADJUDICATED not in results.frame:
        return []
    if judge == ADJUDICATED:
        return ["By adjudicated labels; the models were fitted on labels as they are:", ""]
    return ["By labels as they are:", ""]


def _head(columns: Iterable[str]) -> list[str]:
    names = ["model", *columns]
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _spread(figures: pd.Series | None) -> str:
    if figures is None:
        return "–"
    return f"{figures.mean():.3f} ± {figures.std() if figures.count() > 1 else 0:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
