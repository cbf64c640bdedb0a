"""The report of a training run: one HTML page with figures, plots and the worst mistakes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import ArrayLike

from feedsieve.files import open_atomically
from feedsieve.text import storable
from train.behaviour.outcome import AT_MOST
from train.report import plots
from train.report.file_names import PAGE_FILE
from train.report.model_card import INTENDED_USE, NOT_INTENDED_FOR, Card

WORST = 15  # mistakes to show, of each kind
_TEXT_CHARACTERS = 600
_NAME_CHARACTERS = 80
_METRICS = {  # title and explanation
    "f1": ("F1", "harmonic mean of precision and recall; 1 is perfect"),
    "precision": ("Precision", "share of positives among the messages decided positive"),
    "recall": ("Recall", "share of the positives that are decided positive"),
    "average_precision": ("Average precision", "quality of the ranking, over all thresholds"),
    "brier": ("Brier score", "mean squared error of the score; 0 is perfect"),
    "ece": ("Calibration error", "mean gap between score and share of positives"),
    "n": ("Messages", "that the figures are computed on"),
    "positives": ("Positive", "messages labelled positive"),
    "threshold": ("Threshold", "lowest score that counts as positive"),
    "seconds": ("Seconds", "duration of training"),
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
    audit: Sequence[tuple[int, float]] = (),
    kinds: Sequence[str] = (),
    finetuning: Sequence[Mapping[str, float]] = (),
    card: Card | None = None,
) -> Path:
    """Write `report.html` into `folder` atomically, and return its path.

    The page needs no other file and no network. Sections without data are left out.
    `metrics` is the contents of `metrics.json`. `labels` (0 or 1), `scores` (0 to 1), `texts` and
    `identifiers` are those of the test messages, at least one. `feed_preview` has identifier, text
    and score of the top of the feed. `comparison` has a dict of figures for each precision of the
    encoder, such as `fp32`, and perhaps `chosen` and `reason`. `slices` comes from
    `train.evaluation.slices.by_slice`, `behaviour` from `Outcome.as_table`, `audit` from
    `train.evaluation.label_audit.Audit.progress`; `kinds` describe wrong labels. `finetuning` has
    encoder, epoch, loss, average precision and perhaps layers for each epoch.
    Raises `ValueError` for unequal lengths or values out of range, and `OSError`.
    """
    truth = np.asarray(labels, dtype=np.int64)
    values = np.asarray(scores, dtype=np.float64)
    if not (len(truth) == len(values) == len(texts) == len(identifiers)) or not len(truth):
        raise ValueError(
            "labels, scores, texts and identifiers must be of one length, at least 1, "
            f"not {len(truth)}, {len(values)}, {len(texts)} and {len(identifiers)}"
        )
    decided = values >= threshold
    worst = np.argsort(-np.abs(values - truth), kind="stable")
    mistakes = {
        "Decided positive, labelled negative": worst[(decided & (truth == 0))[worst]],
        "Decided negative, labelled positive": worst[(~decided & (truth == 1))[worst]],
    }
    flat = _flatten(metrics)
    comparison = comparison or {}
    precisions = {
        name: figures for name, figures in comparison.items() if isinstance(figures, Mapping)
    }
    checks = behaviour["checks"] if behaviour else ()
    page = _template().render(
        headline=[
            _metric(name, flat[full])
            for name in _HEADLINE
            if (full := f"test.{name}" if f"test.{name}" in flat else name) in flat
        ],
        metrics=[
            _metric(name, value)
            for name, value in flat.items()
            # The model card lists the features, and lists have tables of their own.
            if not isinstance(value, list) and not name.startswith("features.")
        ],
        precision_recall=Markup(plots.precision_recall(truth, values, threshold)),
        calibration=Markup(plots.calibration(truth, values)),
        histogram=Markup(plots.histogram(truth, values, threshold)),
        confusion={
            (label, decision): int(((truth == label) & (decided == decision)).sum())
            for label in (0, 1)
            for decision in (0, 1)
        },
        threshold=threshold,
        positive_colour=plots.POSITIVE,
        negative_colour=plots.NEGATIVE,
        mistakes={
            name: (len(rows), [(identifiers[row], texts[row], values[row]) for row in rows[:WORST]])
            for name, rows in mistakes.items()
        },
        feed=feed_preview,
        precisions=precisions,
        columns=list(dict.fromkeys(name for figures in precisions.values() for name in figures)),
        chosen=comparison.get("chosen"),
        reason=comparison.get("reason"),
        slices=slices,
        checks=sorted(checks, key=lambda check: check["passed"]),
        at_most=AT_MOST,
        audit=audit,
        kinds=kinds,
        finetuning=finetuning,
        card=_sections(card) if card else {},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_atomically(folder / PAGE_FILE) as file:
        file.write(page)
    return folder / PAGE_FILE


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "short": _shorten}
    return environment.get_template("report.html.j2")


def _shorten(value: Any, characters: int = _NAME_CHARACTERS) -> str:
    text = storable(str(value))
    if len(text) <= characters:
        return text
    return f"{text[:characters].rstrip()} … ({len(text):,} characters)"


def _flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested `metrics` in one level, with dots between the names."""
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _metric(name: str, value: Any) -> dict[str, Any]:
    part, _, last = name.rpartition(".")
    title, note = _METRICS.get(last, (last.replace("_", " ").capitalize(), ""))
    title = f"{title}, {part.replace('_', ', ')}" if part not in ("", "test") else title
    return {"name": name, "title": title, "note": note, "value": value}


def _sections(card: Card) -> dict[str, Sequence[str]]:
    """Return lines of the card by heading."""
    sections = {
        "Data": card.data.lines if card.data else (),
        "Intended use": INTENDED_USE,
        "Not intended for": NOT_INTENDED_FOR,
        "Known failures": card.known_failures,
    }
    return {title: lines for title, lines in sections.items() if lines}


def _figure(value: Any) -> str:
    """Format a number: counts in full, small figures with four decimals."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _shorten(value, _TEXT_CHARACTERS)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
