"""How layers of an encoder are trained: batches of like length, checkpoints, a bar, a full disk."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments

from train.layers import has_bf16

BATCH = 16  # messages
WINDOW = 32  # batches in which messages of like length are put together
WARM_UP = 0.1  # of all steps
LOG_EVERY = 10  # steps
LABELS = "labels"
_TORCH_CANNOT_WRITE = "PytorchStreamWriter"  # all that its RuntimeError has of a full disk


class CannotKeep(RuntimeError):
    """An encoder cannot be written to where it is kept; the message says where and why."""


class LikeLengths(Sampler):
    """Gives rows so that a batch has messages of like length, in another order each epoch.

    The order is a function of seed and epoch, so that training that resumes sees what it would
    have seen.
    """

    def __init__(self, lengths: Sequence[int], seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        full: list[np.ndarray] = []
        rest: list[np.ndarray] = []  # the last batch, if it is smaller, must come last
        for window in np.split(order, range(WINDOW * BATCH, len(order), WINDOW * BATCH)):
            window = window[np.argsort(self.lengths[window], kind="stable")]
            for batch in np.split(window, range(BATCH, len(window), BATCH)):
                (full if len(batch) == BATCH else rest).append(batch)
        batches = [full[place] for place in random.permutation(len(full))] + rest
        yield from (int(row) for batch in batches for row in batch)


class LengthTrainer(Trainer):
    """Transformers' trainer, with batches of like length; its dataset has `lengths`."""

    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return LikeLengths(self.train_dataset.lengths, self.args.seed)


class StepProgress(TrainerCallback):
    """Shows how many steps are done, and the loss."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self._move(state.global_step)
        self.bar.unpause()  # what was done before is not to make the rest look fast

    def on_step_end(self, args, state, control, **kwargs):
        self._move(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log = True  # however few steps it had: the history is of epochs

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self._show(loss=f"{logs['loss']:.3f}")

    def _move(self, step: int) -> None:
        self.bar.update(step - self.bar.n)

    def _show(self, **values: str) -> None:
        self.shown |= values
        self.bar.set_postfix(self.shown)


def arguments(folder: Path, seed: int, epochs: int, watched: bool) -> TrainingArguments:
    """Return the trainer's settings; `watched` means that there is a fold to be judged on."""
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=2 * BATCH,
        num_train_epochs=epochs,
        warmup_ratio=WARM_UP,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        bf16=has_bf16(),
        use_cpu=not on_gpu,
        eval_strategy="epoch" if watched else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=watched,
        metric_for_best_model="average_precision",
        greater_is_better=True,
        logging_steps=LOG_EVERY,
        seed=seed,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        label_names=[LABELS],
        disable_tqdm=True,
        log_level="error",
        report_to="none",
    )


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in `folder` that was written to its end, if there is one."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            found.append((checkpoint_state(checkpoint)["global_step"], checkpoint))
        except (OSError, ValueError, KeyError):  # killed while writing it
            continue
    return str(max(found)[1]) if found else None


def checkpoint_state(checkpoint: Path | str) -> dict[str, Any]:
    """Return what a checkpoint says of itself, in the last file of it to be written."""
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Tell a full disk, as CannotKeep, from what else may go wrong in training."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if isinstance(error, SafetensorError) or _TORCH_CANNOT_WRITE in str(error):
            raise CannotKeep(
                f"cannot write to {folder}, is the disk full? ({str(error).splitlines()[0]})"
            ) from error
        raise


def epochs_of(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return epoch, mean loss and, where it was measured, average precision of each epoch."""
    losses: dict[int, list[float]] = {}
    measured = {}
    for entry in log:
        if "loss" in entry:
            losses.setdefault(math.ceil(entry["epoch"]), []).append(entry["loss"])
        elif "eval_average_precision" in entry:
            measured[round(entry["epoch"])] = {"average_precision": entry["eval_average_precision"]}
    return [
        {"epoch": epoch, "loss": float(np.mean(values)), **measured.get(epoch, {})}
        for epoch, values in losses.items()
    ]
