"""The training loop of encoder layers: length-grouped batches, settings, progress, history."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from train.encoder.layers import has_bf16

BATCH = 16  # messages
WINDOW = 32  # batches whose messages are sorted by length together
WARM_UP = 0.1  # of all steps
LOG_EVERY = 10  # steps
LABELS = "labels"


class LengthGroupedSampler(Sampler):
    """Samples rows so that a batch has messages of similar length, in random order of batches.

    The order depends on seed and epoch alone, so a resumed training sees the batches that it would
    have seen. docs/decisions/finetuning.md compares it with Transformers' sampler.
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
        rest: list[np.ndarray] = []  # a smaller batch must come last
        for window in np.split(order, range(WINDOW * BATCH, len(order), WINDOW * BATCH)):
            window = window[np.argsort(self.lengths[window], kind="stable")]
            for batch in np.split(window, range(BATCH, len(window), BATCH)):
                (full if len(batch) == BATCH else rest).append(batch)
        batches = [full[place] for place in random.permutation(len(full))] + rest
        yield from (int(row) for batch in batches for row in batch)


class LengthGroupedTrainer(Trainer):
    """Transformers' trainer with length-grouped batches; its dataset has `lengths`."""

    train_dataset: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return LengthGroupedSampler(self.train_dataset.lengths, self.args.seed)


class StepProgress(TrainerCallback):
    """Shows the steps done, and the loss."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self._move(state.global_step)
        self.bar.unpause()  # steps of an earlier run must not count in the rate

    def on_step_end(self, args, state, control, **kwargs):
        self._move(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log = True  # even after fewer than LOG_EVERY steps

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self._show(loss=f"{logs['loss']:.3f}")

    def _move(self, step: int) -> None:
        self.bar.update(step - self.bar.n)

    def _show(self, **values: str) -> None:
        self.shown |= values
        self.bar.set_postfix(self.shown)


def training_arguments(
    folder: Path, seed: int, epochs: int, early_stopping: bool
) -> TrainingArguments:
    """Return the trainer's settings; `early_stopping` evaluates after each epoch."""
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
        eval_strategy="epoch" if early_stopping else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=early_stopping,
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


def summarise_epochs(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return epoch, mean loss and, where evaluated, average precision of each epoch in `log`."""
    losses: dict[int, list[float]] = {}
    evaluated = {}
    for entry in log:
        if "loss" in entry:
            losses.setdefault(math.ceil(entry["epoch"]), []).append(entry["loss"])
        elif "eval_average_precision" in entry:
            evaluated[round(entry["epoch"])] = {
                "average_precision": entry["eval_average_precision"]
            }
    return [
        {"epoch": epoch, "loss": float(np.mean(values)), **evaluated.get(epoch, {})}
        for epoch, values in losses.items()
    ]
