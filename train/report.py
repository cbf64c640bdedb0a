"""One page that shows what a trained model does well, what it does badly, and on which messages."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from feedsieve.files import open_whole
from feedsieve.text import storable
from train import card as cards
from train import plots
from train.behaviour.outcome import AT_MOST
from train.card import Card

FILE = "report.html"
WORST = 15
_TEXT_CHARACTERS = 600
_NAME_CHARACTERS = 80
_METRICS = {
    "f1": ("F1", "harmonic mean of precision and recall; 1 is perfect"),
    "precision": ("Precision", "of what the model calls positive, the share that is"),
    "recall": ("Recall", "of what is positive, the share that the model finds"),
    "average_precision": ("Average precision", "quality of the ranking, at any threshold"),
    "brier": ("Brier score", "mean squared error of the score; 0 is perfect"),
    "ece": ("Calibration error", "mean gap between score and what comes true"),
    "n": ("Messages", "that the figures are taken from"),
    "positives": ("Positive", "messages labelled positive"),
    "threshold": ("Threshold", "scores from here up are positive"),
    "seconds": ("Seconds", "that training took"),
}
_HEADLINE = ("f1", "precision", "recall", "average_precision")


def write_report(
    folder: Path,
    *,
    metrics: Mapping[str, Any],
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    texts: Sequence[str],
    identifiers: Sequence[str],
    feed_preview: Sequence[tuple[str, str, float]] | None = None,
    comparison: Mapping[str, Any] | None = None,
    slices: Sequence[Mapping[str, Any]] = (),
    behaviour: Mapping[str, Any] | None = None,
    audit: Sequence[Mapping[str, float]] = (),
    suspects: int | None = None,
    finetuning: Sequence[Mapping[str, float]] = (),
    card: Card | None = None,
) -> Path:
    """Write `report.html` into `folder`, made if need be, and return its path.

    The page needs no other file and no network. It is written whole or not at all.
    `metrics` is what `metrics.json` holds. `labels` (0 or 1), `scores` (0 to 1), `texts` and
    `identifiers` are those of the test messages, all of one length, at least 1. `feed_preview`
    has identifier, text and score of the first messages of the feed. `comparison` has a dict of
    figures for each precision of the encoder by its name, such as `fp32`, and may say which was
    `chosen` and the `reason`. `slices` are the rows of `train.slices.by_slice`, `behaviour` is what
    `Outcome.as_table` returns, `audit` the rows of `train.audit.what_if` and `suspects` how many
    labels look wrong. `finetuning` has encoder, epoch, loss and average precision of each epoch,
    and may have the encoder's layers. Of `card` the page has what is words. What is not given has
    no section.
    Raises `ValueError` for lengths that differ or values out of range, `OSError` if the folder
    cannot be written to.
    """
    truth = np.asarray(labels, dtype=np.int64)
    values = np.asarray(scores, dtype=np.float64)
    if not (len(truth) == len(values) == len(texts) == len(identifiers)) or not len(truth):
        raise ValueError(
            "labels, scores, texts and identifiers must be of one length, at least 1, "
            f"not {len(truth)}, {len(values)}, {len(texts)} and {len(identifiers)}"
        )
    shown = values >= threshold
    flat = _flatten(metrics)
    page = _template().render(
        headline=[_metric(name, flat[found]) for name in _HEADLINE if (found := _find(flat, name))],
        metrics=[
            _metric(name, value)
            for name, value in flat.items()
            # What training took in is in the card, and a list has a table of its own.
            if not isinstance(value, list) and not name.startswith("features.")
        ],
        precision_recall=Markup(plots.precision_recall(truth, values, threshold)),
        calibration=Markup(plots.calibration(truth, values)),
        histogram=Markup(plots.histogram(truth, values, threshold)),
        confusion={
            (label, decision): int(((truth == label) & (shown == decision)).sum())
            for label in (0, 1)
            for decision in (0, 1)
        },
        threshold=threshold,
        positive_colour=plots.POSITIVE,
        negative_colour=plots.NEGATIVE,
        mistakes=[
            {
                "name": name,
                "total": len(rows),
                "messages": [
                    _message(identifiers[row], texts[row], values[row]) for row in rows[:WORST]
                ],
            }
            for name, rows in _mistakes(truth, values, shown).items()
        ],
        feed=[_message(*message) for message in feed_preview or ()],
        comparison=_comparison(comparison or {}),
        slices=slices,
        checks=_checks(behaviour or {}),
        audit=audit,
        suspects=suspects,
        finetuning=finetuning,
        card=_card(card) if card else {},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_whole(folder / FILE) as file:
        file.write(page)
    return folder / FILE


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template("report.html.j2")


def _mistakes(
    labels: NDArray[np.int64], scores: NDArray[np.float64], shown: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    """Return the rows decided wrongly, either way, those farthest from their label first."""
    worst = np.argsort(-np.abs(scores - labels), kind="stable")
    return {
        "Called positive, labelled negative": worst[(shown & (labels == 0))[worst]],
        "Called negative, labelled positive": worst[(~shown & (labels == 1))[worst]],
    }


def _message(identifier: Any, text: str, score: float) -> dict[str, Any]:
    return {
        "id": _shortened(identifier, _NAME_CHARACTERS),
        "text": _shortened(text, _TEXT_CHARACTERS),
        "score": float(score),
    }


def _shortened(value: Any, characters: int) -> str:
    text = storable(str(value))
    if len(text) <= characters:
        return text
    return f"{text[:characters].rstrip()} … ({len(text):,} characters)"


def _flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested `metrics` as one level, with dots between the names."""
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _find(flat: Mapping[str, Any], name: str) -> str | None:
    """Return the full name of a metric of the test part, or of that name alone."""
    return next((full for full in (f"test.{name}", name) if full in flat), None)


def _metric(name: str, value: Any) -> dict[str, str]:
    part, _, last = name.rpartition(".")
    title, note = _METRICS.get(last, (last.replace("_", " ").capitalize(), ""))
    return {
        "name": _shortened(name, _NAME_CHARACTERS),
        "title": _shortened(f"{title}, {part}" if part not in ("", "test") else title, 80),
        "note": note,
        "value": _figure(value),
    }


def _comparison(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of precisions: names of the columns, and a row for each precision."""
    rows = {name: figures for name, figures in comparison.items() if isinstance(figures, Mapping)}
    columns = list(dict.fromkeys(column for figures in rows.values() for column in figures))
    return {
        "columns": [_shortened(column, _NAME_CHARACTERS).replace("_", " ") for column in columns],
        "rows": [
            {
                "name": _shortened(name, _NAME_CHARACTERS),
                "chosen": name == comparison.get("chosen"),
                "figures": [_figure(figures.get(column)) for column in columns],
            }
            for name, figures in rows.items()
        ],
        "chosen": _shortened(comparison.get("chosen") or "", _NAME_CHARACTERS),
        "reason": _shortened(comparison.get("reason") or "", _TEXT_CHARACTERS),
    }


def _checks(behaviour: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of checks, those that failed first."""
    rows = sorted(behaviour.get("checks", ()), key=lambda check: check["passed"])
    return [
        {
            "passed": check["passed"],
            "kind": _shortened(check["kind"], _NAME_CHARACTERS),
            "name": _shortened(check["name"], _NAME_CHARACTERS),
            "cases": check["cases"],
            "figures": [
                f"{measure} {figure:.3f}{_bound(measure, check['required'])}"
                for measure, figure in check["reached"].items()
            ],
        }
        for check in rows
    ]


def _bound(measure: str, required: Mapping[str, float]) -> str:
    if measure not in required:
        return ""
    return f" (required {'≤' if measure in AT_MOST else '≥'} {required[measure]:.2f})"


def _card(card: Card) -> dict[str, list[str]]:
    """Return the card's lines by the heading they stand under."""
    sections = {
        "Data": card.data.lines if card.data else (),
        "Intended use": cards.INTENDED_USE,
        "Not intended for": cards.NOT_INTENDED_FOR,
        "Known failures": card.known_failures,
    }
    return {
        title: [_shortened(line, 2 * _TEXT_CHARACTERS) for line in lines]
        for title, lines in sections.items()
        if lines
    }


def _figure(value: Any) -> str:
    """Return a number as it is read: counts whole, small figures to four decimals."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _shortened(value, _TEXT_CHARACTERS)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
