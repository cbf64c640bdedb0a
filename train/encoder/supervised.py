"""Supervised training of one encoder, with early stopping on a held-out fold and checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import EarlyStoppingCallback, set_seed

from export.sources import Source
from train.encoder.checkpoints import Checkpoints, checkpoint_state
from train.encoder.layers import UpperLayers, frozen_states, pad
from train.encoder.trainer import (
    LABELS,
    LengthGroupedTrainer,
    StepProgress,
    summarise_epochs,
    training_arguments,
)

PATIENCE = 1  # epochs without a better average precision
HEAD_RATE = 2e-3  # AdamW's peak learning rate for the head
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Recipe:
    """An encoder to train on labels, and how."""

    source: Source
    frozen: int  # layers, from the bottom
    rate: float  # AdamW's peak learning rate
    name: str  # prefix of its checkpoint folders

    @property
    def layers(self) -> int:
        return self.source.model.config.num_hidden_layers

    def frozen_states(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Return the frozen layers' output for each text, (tokens, hidden size)."""
        return frozen_states(self.source, texts, self.frozen)


class Examples(Dataset):
    """The frozen layers' output for messages, with targets from 0 to 1."""

    def __init__(
        self, hidden: Sequence[torch.Tensor], targets: np.ndarray, rows: np.ndarray
    ) -> None:
        """Select `rows` of `hidden`, (tokens, hidden size) each, and of `targets`, (messages,)."""
        self.hidden = [hidden[row] for row in rows]
        self.targets = targets[rows]
        self.lengths = [len(states) for states in self.hidden]

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"hidden": self.hidden[row], LABELS: float(self.targets[row])}


@dataclass(frozen=True)
class Trained:
    """A trained encoder's layers and head."""

    weights: dict[str, torch.Tensor]
    logits: np.ndarray  # of the held-out messages, (messages,); empty if there are none
    history: list[dict[str, float]]  # epoch, mean loss and, with early stopping, average precision

    @property
    def best_epoch(self) -> int:
        best = max(self.history, key=lambda epoch: epoch["average_precision"])
        return int(best["epoch"])


class Progress(StepProgress):
    """Shows the steps of several encoders, the loss, and the average precision when held out."""

    def __init__(self, bar: tqdm, steps: Sequence[int]) -> None:
        """`steps` is the largest number of steps of each encoder, in order."""
        super().__init__(bar)
        self.steps = steps
        self.bar.total = sum(steps)
        self.encoder = 0

    def finish_encoder(self) -> None:
        """Count the steps that this encoder did not need as done, and start the next one."""
        self._move(self.steps[self.encoder])
        self.encoder += 1

    def on_train_begin(self, args, state, control, **kwargs):
        self.shown = {"encoder": f"{self.encoder + 1} of {len(self.steps)}"}
        super().on_train_begin(args, state, control, **kwargs)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if metrics:
            self._show(AP=f"{metrics['eval_average_precision']:.3f}")

    def _move(self, step: int) -> None:
        super()._move(sum(self.steps[: self.encoder]) + step)


def train_encoder(
    folder: Path,
    recipe: Recipe,
    examples: Examples,
    held_out: Examples | None,
    *,
    epochs: int,
    early_stopping: bool,
    seed: int,
    progress: Progress,
) -> Trained:
    """Train one encoder, or resume, or load the result that `folder` has already.

    Early stopping needs `held_out`. Raises CheckpointError.
    """
    checkpoints = Checkpoints(folder)
    if not checkpoints.is_complete:
        set_seed(seed)
        model = UpperLayers(recipe.source, recipe.frozen)
        epochs = _stopped_after(checkpoints.newest) or epochs
        groups: list[dict[str, Any]] = [
            {"params": model.layers.parameters()},
            {"params": model.head.parameters(), "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=WEIGHT_DECAY, fused=True)
        trainer = LengthGroupedTrainer(
            model=model,
            args=training_arguments(folder, seed, epochs, early_stopping),
            train_dataset=examples,
            eval_dataset=held_out if early_stopping else None,
            data_collator=_collate,
            compute_metrics=_metrics,
            optimizers=(optimizer, None),
            callbacks=[progress, *([EarlyStoppingCallback(PATIENCE)] if early_stopping else [])],
        )
        checkpoints.train(trainer)
        logits = np.asarray(trainer.predict(held_out).predictions).tolist() if held_out else []
        history = summarise_epochs(trainer.state.log_history)
        checkpoints.complete(model, {"logits": logits, "history": history})
    progress.finish_encoder()
    weights, values = checkpoints.result()
    return Trained(weights, np.array(values["logits"]), values["history"])


def _stopped_after(checkpoint: str | None) -> int | None:
    """Return the number of epochs after which training stopped early, or None if it did not."""
    if not checkpoint:
        return None
    state = checkpoint_state(checkpoint)
    if not state.get("best_global_step"):  # no early stopping
        return None
    best = state["epoch"] * state["best_global_step"] / state["global_step"]
    return round(state["epoch"]) if round(state["epoch"] - best) >= PATIENCE else None


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    hidden, mask = pad([row["hidden"] for row in rows])
    targets = torch.tensor([row[LABELS] for row in rows])
    return {"hidden": hidden, "attention_mask": mask, LABELS: targets}


def _metrics(prediction: Any) -> dict[str, float]:
    labels, logits = prediction.label_ids, prediction.predictions
    return {"average_precision": float(average_precision_score(labels, logits))}
