"""Cross-validate every way to score messages, with checkpoints per fold.

Each model chooses its early stopping, calibration and threshold within the part it is fitted on, so
that the held-out part measures the whole way from data to model.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from export import pipeline as export
from export.sources import Source
from feedsieve.files import one_run_at_a_time, open_atomically
from feedsieve.settings import settings
from train.classifier.parameters import PARAMETERS
from train.data.folds import folds
from train.data.near_duplicates import near_duplicate_groups
from train.data.split import split
from train.data.validation import checked
from train.encoder.checkpoints import run_key
from train.encoder.embedder import Embedder
from train.encoder.layer_choice import ALL, choose_layers
from train.evaluation import candidates
from train.evaluation.candidates import Part, Predictions
from train.evaluation.judges import GIVEN
from train.evaluation.metrics import evaluate
from train.evaluation.slices import by_slice, precisions_at

FOLDS = 5
TEST = "test"
_CODE = (  # packages that scores depend on; a change in them invalidates checkpoints
    "export",
    "feedsieve.scoring",
    "train.classifier",
    "train.data",
    "train.encoder",
    "train.evaluation",
)


@dataclass(frozen=True)
class Trial:
    """Row numbers of a part to fit models on, and of a held-out part."""

    name: str  # "fold 1" and so on, or "test"
    train: np.ndarray
    held_out: np.ndarray

    @property
    def file_name(self) -> str:
        """The name without spaces."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Results:
    """Predictions by candidate and trial, for the messages of `frame`."""

    frame: pd.DataFrame
    trials: Sequence[Trial]
    predictions: Mapping[str, Mapping[str, Predictions]]

    @property
    def folds(self) -> list[Trial]:
        """The trials without that on the test part."""
        return [trial for trial in self.trials if trial.name != TEST]

    def figures(self, candidate: str, trial: Trial, judge: str = GIVEN) -> dict[str, float]:
        """Return the metrics of one candidate in one trial, by a column of labels."""
        predictions = self.predictions[candidate][trial.name]
        labels = self.frame[judge].to_numpy()[trial.held_out]
        return {
            **evaluate(labels, predictions.scores, predictions.threshold),
            **precisions_at(labels, predictions.scores),
        }

    def fold_figures(self, candidate: str, judge: str = GIVEN) -> pd.DataFrame:
        """Return the metrics of one candidate, a row for each fold; NaN where one is undefined."""
        return pd.DataFrame([self.figures(candidate, trial, judge) for trial in self.folds])

    def slices(self, candidate: str) -> list[dict[str, Any]]:
        """Return the metrics by language and length over all folds together.

        F1 is computed from decisions, because each fold has its own threshold.
        """
        frame = self.frame.iloc[np.concatenate([trial.held_out for trial in self.folds])]
        texts, labels = frame["msg"].tolist(), frame["label"]
        predictions = [self.predictions[candidate][trial.name] for trial in self.folds]
        scores = np.concatenate([one.scores for one in predictions])
        decisions = np.concatenate([one.scores >= one.threshold for one in predictions])
        by_score = by_slice(texts, labels, scores, 0.5)
        by_decision = by_slice(texts, labels, decisions.astype(float), 0.5)
        return [
            {**one, "f1": other["f1"]} for one, other in zip(by_score, by_decision, strict=True)
        ]


def cross_validate(
    frame: pd.DataFrame,
    source: Source,
    seed: int,
    checkpoints: Path,
    *,
    finetune: bool,
    test: bool,
    student_layers: str | None = ALL,
    count: int = FOLDS,
) -> Results:
    """Fit every candidate without each of `count` folds of the training part, and score the fold.

    `test` adds a trial on the test part. `finetune` includes fine-tuned encoders, and a student of
    `student_layers`, as `choose_layers` reads them, unless these are all layers. Predictions are
    stored below `checkpoints`, so that an interrupted run resumes.
    Raises InvalidLayers and AlreadyRunning, and ValueError for too few messages.
    """
    all_layers = source.model.config.num_hidden_layers
    layers = choose_layers(student_layers, all_layers)
    ways = ["linear", "frozen"]
    if finetune:
        ways.append("tuned")
        if len(layers) < all_layers:
            ways.append(f"distil-{'-'.join(map(str, layers))}")
    parts = split(frame, seed)
    frame = pd.concat([parts.train, parts.test], ignore_index=True)
    size = len(parts.train)
    texts, labels = frame["msg"].tolist(), frame["label"].to_numpy()
    groups = near_duplicate_groups(texts[:size], progress=False)
    pairs = folds(labels[:size], groups, seed, count)
    trials = [Trial(f"fold {number}", *rows) for number, rows in enumerate(pairs, 1)]
    if test:
        trials.append(Trial(TEST, np.arange(size), np.arange(size, len(frame))))
    is_checked = checked(frame)
    marked = is_checked.tolist()
    inputs = [texts, labels.tolist(), marked, size, groups.tolist(), seed, count, PARAMETERS]
    folder = checkpoints / f"compare-{run_key(source, list(_modules()), inputs)}"
    predictions: dict[str, dict[str, Predictions]] = {}
    with (
        one_run_at_a_time(folder),
        tempfile.TemporaryDirectory(prefix="feedsieve-compare-") as exported,
    ):
        predictor = _Predictor(source, texts, layers, seed, settings().threads, Path(exported))
        for trial in trials:
            # Shared by both ways with a fine-tuned encoder: the student learns from the teachers.
            encoders = folder / f"encoders-{trial.file_name}"
            part = Part(
                [texts[row] for row in trial.train],
                labels[trial.train],
                groups[trial.train],
                [texts[row] for row in trial.held_out],
                is_checked[trial.train],
            )
            for way in ways:
                print(f"{way}, {trial.name}", file=sys.stderr)
                file = folder / f"{way}-{trial.file_name}.json"
                if not file.exists():
                    _store(file, predictor.predict(way, part, encoders))
                for candidate, scored in _load(file).items():
                    predictions.setdefault(candidate, {})[trial.name] = scored
            if finetune:
                shutil.rmtree(encoders, ignore_errors=True)
    return Results(frame, trials, predictions)


@dataclass(frozen=True)
class _Predictor:
    """Everything that candidates need in all trials."""

    source: Source
    texts: Sequence[str]
    student_layers: Sequence[int]
    seed: int
    threads: int
    folder: Path  # for the exported encoder

    @cached_property
    def embedder(self) -> Embedder:
        """The frozen encoder, exported only if a prediction is missing."""
        texts = list(self.texts)
        return Embedder(
            export.export_encoder(self.source, self.folder, texts, self.threads).fastest
        )

    def predict(self, way: str, part: Part, encoders: Path) -> dict[str, Predictions]:
        """Return predictions by candidate; checkpoints go into the folder `encoders`."""
        if way == "linear":
            return candidates.linear(part, self.seed)
        if way == "frozen":
            return candidates.frozen_alone(part, self.embedder, self.seed) | candidates.frozen(
                part, self.embedder, self.seed
            )
        layers = None if way == "tuned" else self.student_layers
        return candidates.tuned(part, self.source, self.seed, encoders, self.threads, layers)


def _store(file: Path, predictions: Mapping[str, Predictions]) -> None:
    table = {name: (one.scores.tolist(), one.threshold) for name, one in predictions.items()}
    with open_atomically(file) as stream:
        json.dump(table, stream)


def _load(file: Path) -> dict[str, Predictions]:
    table = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: Predictions(np.array(scores), threshold)
        for name, (scores, threshold) in table.items()
    }


def _modules() -> Iterator[ModuleType]:
    """Yield every module of `_CODE`, except commands."""
    yield import_module("feedsieve.text")
    for package in map(import_module, _CODE):
        for module in iter_modules(package.__path__):
            if module.name != "__main__":
                yield import_module(f"{package.__name__}.{module.name}")
