"""What a training leaves in its run in MLflow, and the version that it registers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from feedsieve import models
from train import card, plots, registry
from train.registry import Pair
from train.tracking import Run

_CHOSEN = ("features.", "rounds", "seed", "threshold")  # numbers that are not measured


def record(
    run: Run,
    metrics: Mapping[str, Any],
    *,
    fingerprint: str,
    labels: np.ndarray,
    scores: np.ndarray,
    files: Sequence[Path],
) -> None:
    """Log every number of `metrics`, which is what `metrics.json` has, plots, files and the card.

    `fingerprint` is that of the data; `labels`, 0 or 1, and `scores` are of the test part, both
    (messages,). What it raises is MLflow's; see `Run.recording`.
    """
    pair = Pair(metrics["classifier_tag"], metrics["encoder_tag"], fingerprint)
    found = figures(metrics)
    chosen = {name: found.pop(name) for name in list(found) if name.startswith(_CHOSEN)}
    chosen["precision.chosen"] = metrics["precision"]["chosen"]
    run.rename(pair.classifier_tag)
    run.log(parameters=chosen, metrics=found, tags=asdict(pair))
    for row in metrics.get("finetuning", ()):
        name = f"finetuning.encoder {row['encoder']:.0f}"
        measured = figures(
            {name: {key: row[key] for key in row.keys() - {"encoder", "epoch", "layers"}}}
        )
        run.log(metrics=measured, step=int(row["epoch"]))
    threshold = metrics["threshold"]
    drawings = {
        "precision-recall": plots.precision_recall(labels, scores, threshold),
        "calibration": plots.calibration(labels, scores),
        "histogram": plots.histogram(labels, scores, threshold),
    }
    run.log_texts({f"plots/{name}.svg": plots.standalone(svg) for name, svg in drawings.items()})
    run.log_files(*files)
    run.log_files(models.folder(pair.classifier_tag) / card.FILE, folder=registry.FOLDER)
    registry.register(run, pair)


def versions() -> dict[str, str]:
    """Return the versions that figures depend on, as parameters."""
    return {f"version.{name}": number for name, number in card.installed_versions().items()}


def figures(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested `metrics` by their names with dots between."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found
