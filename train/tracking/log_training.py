"""Log a training run to MLflow, and register the pair of models that it made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from feedsieve.scoring import model_store
from train.report import model_card, plots
from train.tracking import registry, shared_models
from train.tracking.mlflow_run import Run
from train.tracking.registry import Pair

_PARAMETERS = ("features.", "rounds", "seed", "threshold")  # numbers that are chosen, not measured


def record(
    run: Run,
    metrics: Mapping[str, Any],
    *,
    fingerprint: str,
    labels: np.ndarray,
    scores: np.ndarray,
    files: Sequence[Path],
) -> None:
    """Log all numbers of `metrics` (the contents of `metrics.json`), plots, files and the card.

    `fingerprint` is that of the data; `labels`, 0 or 1, and `scores` are of the test part, both
    (messages,). Raises MLflow's errors; see `Run.recording`.
    """
    pair = Pair(metrics["classifier_tag"], metrics["encoder_tag"], fingerprint)
    measured = figures(metrics)
    chosen = {name: measured.pop(name) for name in list(measured) if name.startswith(_PARAMETERS)}
    chosen["precision.chosen"] = metrics["precision"]["chosen"]
    run.rename(pair.classifier_tag)
    run.log(parameters=chosen, metrics=measured, tags=asdict(pair))
    for row in metrics.get("finetuning", ()):
        losses = {key: row[key] for key in row.keys() - {"encoder", "epoch", "layers"}}
        name = f"finetuning.encoder {row['encoder']:.0f}."
        run.log(metrics=figures(losses, name), step=int(row["epoch"]))
    threshold = metrics["threshold"]
    drawings = {
        "precision-recall": plots.precision_recall(labels, scores, threshold),
        "calibration": plots.calibration(labels, scores),
        "histogram": plots.histogram(labels, scores, threshold),
    }
    run.log_texts({f"plots/{name}.svg": plots.standalone(svg) for name, svg in drawings.items()})
    run.log_files(*files)
    run.log_files(model_store.folder(pair.classifier_tag) / model_card.FILE, folder=registry.FOLDER)
    registry.register(run, pair, shared_models.upload(run, pair.classifier_tag, pair.encoder_tag))


def versions() -> dict[str, str]:
    """Return the versions of Python and libraries as parameters of a run."""
    return {f"version.{name}": number for name, number in model_card.installed_versions().items()}


def figures(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested `metrics` by name, with dots between the levels."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found
