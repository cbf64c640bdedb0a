"""Cross-fitting: encoders that predict only messages whose labels they were not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from train.classifier.calibration import calibrate
from train.encoder.checkpoints import Checkpoints
from train.encoder.supervised import Examples, Progress, Recipe, Trained, train_encoder
from train.encoder.trainer import BATCH

EPOCHS = 3
LABEL_WEIGHT = 0.5  # of the label in a soft target; the rest is the teacher's


@dataclass(frozen=True)
class Run:
    """The training of one encoder."""

    recipe: Recipe
    name: str  # of its checkpoint folder
    rows: np.ndarray  # to train on
    held_out: np.ndarray  # rows to predict
    early_stopping: bool  # by the held-out rows


def fold_runs(recipe: Recipe, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Run]:
    """Return one run per fold, trained on the rest; `parts` are (rest, fold)."""
    return [
        Run(recipe, f"{recipe.name}-{number}", rest, fold, early_stopping=True)
        for number, (rest, fold) in enumerate(parts, 1)
    ]


def teacher_runs(
    recipe: Recipe, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[tuple[int, int], Run]:
    """Return cross-fitted teachers by the pair of folds that each is not trained on.

    With two folds there are none. They do not stop early, since that would use the labels of both
    held-out folds.
    """
    folds = [fold for _rest, fold in parts]
    runs = {}
    for pair in combinations(range(len(folds)), 2):
        held_out = np.concatenate([folds[number] for number in pair])
        others = [fold for number, fold in enumerate(folds) if number not in pair]
        if others:
            name = f"{recipe.name}-without-{pair[0] + 1}-{pair[1] + 1}"
            rows = np.sort(np.concatenate(others))
            runs[pair] = Run(recipe, name, rows, held_out, early_stopping=False)
    return runs


def soft_targets(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the weighted mean of labels, 0 or 1, and calibrated teacher logits, (messages,)."""
    probabilities = calibrate(logits, labels)
    return LABEL_WEIGHT * labels + (1 - LABEL_WEIGHT) * probabilities


class CrossFitting:
    """Trains encoders one after the other, with one progress bar."""

    def __init__(
        self, runs: Sequence[Run], labels: np.ndarray, seed: int, folder: Path, bar: tqdm
    ) -> None:
        """`runs` are all trainings in order; `labels`, 0 or 1, are (messages,)."""
        self._runs = runs
        self._labels = labels
        self._seed = seed
        self._folder = folder
        self._progress = Progress(bar, [EPOCHS * -(-len(run.rows) // BATCH) for run in runs])
        self._trained: list[Trained] = []

    @property
    def history(self) -> list[dict[str, float]]:
        """The epochs of all encoders, each with the encoder's number, from 1, and its layers."""
        return [
            {"encoder": number, "layers": run.recipe.layers, **epoch}
            for number, (run, trained) in enumerate(zip(self._runs, self._trained, strict=True), 1)
            for epoch in trained.history
        ]

    def train(
        self, run: Run, hidden: Sequence[torch.Tensor], targets: np.ndarray, epochs: int
    ) -> Trained:
        """Train the next encoder on its rows of `targets`, from 0 to 1, (messages,)."""
        number = len(self._trained) + 1
        trained = train_encoder(
            self._folder / run.name,
            run.recipe,
            Examples(hidden, targets, run.rows),
            Examples(hidden, self._labels, run.held_out) if len(run.held_out) else None,
            epochs=epochs,
            early_stopping=run.early_stopping,
            seed=self._seed + (number if number < len(self._runs) else 0),
            progress=self._progress,
        )
        self._trained.append(trained)
        return trained

    def out_of_fold(
        self, runs: Sequence[Run], hidden: Sequence[torch.Tensor], targets: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, int]:
        """Train the encoders of the folds; return out-of-fold logits and the mean best epoch.

        `targets` has one array, (messages,), per fold.
        """
        logits = np.empty(len(hidden))
        epochs = []
        for run, values in zip(runs, targets, strict=True):
            trained = self.train(run, hidden, values, EPOCHS)
            logits[run.held_out] = trained.logits
            epochs.append(trained.best_epoch)
        return logits, round(np.mean(epochs))

    def student_targets(
        self,
        teachers: Mapping[tuple[int, int], Run],
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
        hidden: Sequence[torch.Tensor],
    ) -> list[np.ndarray]:
        """Train the teachers; return the targets of each fold's student, (messages,).

        A student's target of a message comes from the teacher trained without the student's fold
        and without the message's. Without teachers the targets are the labels.
        """
        logits = np.full((len(parts), len(hidden)), np.nan)
        for (one, other), run in teachers.items():
            predicted = np.empty(len(hidden))
            predicted[run.held_out] = self.train(run, hidden, self._labels, EPOCHS).logits
            for student, predicted_fold in ((one, other), (other, one)):
                fold = parts[predicted_fold][1]
                logits[student, fold] = predicted[fold]
        targets = []
        for (rest, _fold), fold_logits in zip(parts, logits, strict=True):
            values = self._labels.astype(np.float64)
            if teachers:
                values[rest] = soft_targets(self._labels[rest], fold_logits[rest])
            targets.append(values)
        return targets


def describe_progress(folder: Path, runs: Sequence[Run]) -> str | None:
    """Describe what an interrupted run left in `folder`; None if that is nothing."""
    trainings = [Checkpoints(folder / run.name) for run in runs]
    complete = sum(training.is_complete for training in trainings)
    epochs = trainings[complete].epochs_done if complete < len(runs) else 0
    if not complete and not epochs:
        return None
    description = f"resuming fine-tuning: {complete} of {len(runs)} encoders are done"
    if epochs:
        description += f", encoder {complete + 1} has done {epochs} of {EPOCHS} epochs"
    return description
