"""Fine-tune the encoder: its upper layers learn the labels, first in folds, then of all messages.

The encoders of the folds are each trained without one fold of the messages. What each says of its
own fold is what LightGBM learns from, since it had not seen those labels. The last encoder is
trained on all messages, and is the one that is kept. It learns a message's label and that verdict
half and half, so that a wrong label, of which there are some, is not learnt by heart (as Reed et
al., https://arxiv.org/abs/1412.6596, do with a model's own predictions). What was tried is in
docs/decisions/finetuning.md.

The lower layers and the word vectors stay as they are, so their output is computed once, and a
step of training costs what its upper layers cost.
"""

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from export.sources import Source
from feedsieve import text
from feedsieve.classifier import Calibration
from feedsieve.features import Head
from feedsieve.files import one_run_at_a_time, open_whole
from train import classifier, layers
from train.evaluate import fit_platt
from train.kept import run_key
from train.layers import UpperLayers, has_bf16, lower_layers, pad

FOLDS = 3  # each has an encoder that does not see its messages
FROZEN = 2 / 3  # of the layers, from the bottom; see docs/decisions/finetuning.md
MAX_TOKENS = 160  # longer messages are cut, when they are learnt and when they are scored
EPOCHS = 3
PATIENCE = 1  # epochs without a better average precision
BATCH = 16  # messages
WINDOW = 32  # batches in which messages of like length are put together
RATE = 2e-4  # AdamW's, at its highest
HEAD_RATE = 2e-3
WARM_UP = 0.1  # of all steps
WEIGHT_DECAY = 0.01
TRUST = 0.5  # in a label, when the last encoder learns it; the rest is in the folds' verdict
LOG_EVERY = 10  # steps
LABELS = "labels"
_TORCH_CANNOT_WRITE = "PytorchStreamWriter"  # all that its RuntimeError has of a full disk


class CannotKeep(RuntimeError):
    """An encoder cannot be written to where it is kept; the message says where and why."""


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning leaves."""

    source: Source  # the encoder with its new weights
    head: Head  # on its embeddings
    verdicts: np.ndarray  # logits of positive, (texts,), by encoders that had not seen the label
    history: list[dict[str, float]]  # encoder, epoch, loss and validation average precision
    kept: Path | None = None  # where every encoder is, until `forget`

    def forget(self) -> None:
        """Remove what was kept to go on from, once the result is safe."""
        if self.kept:
            shutil.rmtree(self.kept, ignore_errors=True)


class Messages(Dataset):
    """Messages as the frozen layers left them, and their labels, from 0 to 1."""

    def __init__(self, hidden: Sequence[torch.Tensor], labels: np.ndarray) -> None:
        self.hidden = hidden
        self.labels = labels
        self.lengths = [len(states) for states in hidden]

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"hidden": self.hidden[row], LABELS: float(self.labels[row])}

    def part(self, rows: np.ndarray) -> "Messages":
        return Messages([self.hidden[row] for row in rows], self.labels[rows])


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


def finetune(
    source: Source,
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    cache: Path,
) -> FineTuned:
    """Return `source` with upper layers that have learnt `labels`, 0 or 1, (texts,).

    One encoder is trained for each of `FOLDS` folds, which keep `groups`, (texts,), whole, and one
    on all texts, for as many epochs as those took to their best on average. Each epoch is kept
    below `cache` until `FineTuned.forget`, so that a run that was killed goes on where it was if
    it is started again with the same arguments.

    Raises ValueError if a label is in fewer than two groups, RunningAlready, and CannotKeep.
    """
    source = replace(source, max_tokens=min(MAX_TOKENS, source.max_tokens))
    parts = list(classifier.folds(labels, groups, seed, FOLDS))
    folds = [fold.tolist() for _rest, fold in parts]
    code = [sys.modules[__name__], layers, text]
    key = run_key(source, code, [list(texts), labels.tolist(), folds, seed])
    folder = cache / f"finetune-{key}"
    with one_run_at_a_time(folder):
        return _finetune(source, texts, labels, parts, seed, folder)


def _finetune(
    source: Source,
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    folder: Path,
) -> FineTuned:
    if said := _resuming(folder, len(parts) + 1):
        print(said)
    frozen = round(FROZEN * source.model.config.num_hidden_layers)
    messages = Messages(lower_layers(source, texts, frozen), labels)
    verdicts = np.empty(len(texts))
    trained: list[_Trained] = []
    with tqdm(desc="fine-tune", unit="step", smoothing=0.05) as bar:
        progress = Progress(bar, [len(rest) for rest, _fold in parts] + [len(texts)])
        for number, (rest, fold) in enumerate(parts, 1):
            set_seed(seed + number)
            model = UpperLayers(source, frozen)
            encoder = _Encoder(folder / f"encoder-{number}", seed + number, progress)
            found = encoder.train(model, EPOCHS, messages.part(rest), messages.part(fold))
            verdicts[fold] = found.verdicts
            trained.append(found)
        set_seed(seed)
        tuned = UpperLayers(source, frozen)
        encoder = _Encoder(folder / f"encoder-{len(parts) + 1}", seed, progress)
        epochs = round(np.mean([found.best_epoch for found in trained]))
        believed = Calibration(*fit_platt(verdicts, labels)).apply(verdicts)
        targets = TRUST * labels + (1 - TRUST) * believed
        found = encoder.train(tuned, epochs, Messages(messages.hidden, targets), None)
    tuned.cpu().load_state_dict(found.state)
    history = [
        {"encoder": number, **epoch}
        for number, found in enumerate([*trained, found], 1)
        for epoch in found.history
    ]
    return FineTuned(tuned.merged(source), tuned.head_of_encoder(), verdicts, history, folder)


class Progress(TrainerCallback):
    """Shows how far all encoders are, the loss, and the average precision on the held-out fold."""

    def __init__(self, bar: tqdm, sizes: Sequence[int]) -> None:
        """`sizes` are the numbers of messages that the encoders, one after the other, learn."""
        self.bar = bar
        self.steps = [EPOCHS * -(-size // BATCH) for size in sizes]
        self.bar.total = sum(self.steps)
        self.encoder = 0
        self.shown: dict[str, str] = {}

    def finish_encoder(self) -> None:
        """Go on to the next encoder; steps of this one that were not needed count as done."""
        self._move(self.steps[self.encoder])
        self.encoder += 1

    def on_train_begin(self, args, state, control, **kwargs):
        self.shown = {"encoder": f"{self.encoder + 1} of {len(self.steps)}"}
        self._move(state.global_step)
        self.bar.unpause()  # what was done before is not to make the rest look fast

    def on_step_end(self, args, state, control, **kwargs):
        self._move(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log = True  # however few steps it had: the history is of epochs

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self._show(loss=f"{logs['loss']:.3f}")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if metrics:
            self._show(AP=f"{metrics['eval_average_precision']:.3f}")

    def _move(self, step: int) -> None:
        self.bar.update(sum(self.steps[: self.encoder]) + step - self.bar.n)

    def _show(self, **values: str) -> None:
        self.shown |= values
        self.bar.set_postfix(self.shown)


class _Trainer(Trainer):
    """Transformers' trainer, with batches of like length."""

    train_dataset: Messages

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return LikeLengths(self.train_dataset.lengths, self.args.seed)


@dataclass(frozen=True)
class _Trained:
    """What training one encoder gave."""

    state: dict[str, torch.Tensor]
    verdicts: np.ndarray  # logits of the fold that was held out, (messages,); empty without one
    history: list[dict[str, float]]  # epoch, mean loss and, with a fold, average precision

    @property
    def best_epoch(self) -> int:
        best = max(self.history, key=lambda epoch: epoch["average_precision"])
        return int(best["epoch"])


@dataclass(frozen=True)
class _Encoder:
    """One encoder's place among those that are trained, and the folder that it is left in."""

    folder: Path
    seed: int
    progress: Progress

    def train(
        self, model: UpperLayers, epochs: int, messages: Messages, fold: Messages | None
    ) -> _Trained:
        """Train `model`, unless that was done before; stop early if there is a fold to watch."""
        done = self.folder / "done.json"
        if not done.exists():
            newest = last_checkpoint(self.folder)
            trainer = self._trainer(model, _stopped(newest) or epochs, messages, fold)
            with _keeping(self.folder):
                trainer.train(resume_from_checkpoint=newest)
            verdicts = np.asarray(trainer.predict(fold).predictions).tolist() if fold else []
            state = {name: value.cpu() for name, value in model.state_dict().items()}
            with _keeping(self.folder):
                save_file(state, self.folder / "state.safetensors")
            told = {"verdicts": verdicts, "history": _history(trainer.state.log_history)}
            with open_whole(done) as file:
                json.dump(told, file)
            for checkpoint in self.folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        self.progress.finish_encoder()
        kept = json.loads(done.read_text(encoding="utf-8"))
        state = load_file(self.folder / "state.safetensors")
        return _Trained(state, np.array(kept["verdicts"]), kept["history"])

    def _trainer(
        self, model: UpperLayers, epochs: int, messages: Messages, fold: Messages | None
    ) -> Trainer:
        groups: list[dict[str, Any]] = [
            {"params": model.layers.parameters()},
            {"params": model.head.parameters(), "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=WEIGHT_DECAY, fused=True)
        callbacks: list[TrainerCallback] = [self.progress]
        if fold:
            callbacks.append(EarlyStoppingCallback(PATIENCE))
        trainer = _Trainer(
            model=model,
            args=_arguments(self.folder, self.seed, epochs, watched=fold is not None),
            train_dataset=messages,
            eval_dataset=fold,
            data_collator=_collate,
            compute_metrics=_metrics,
            optimizers=(optimizer, None),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in `folder` that was written to its end, if there is one."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            found.append((_state(checkpoint)["global_step"], checkpoint))
        except (OSError, ValueError, KeyError):  # killed while writing it
            continue
    return str(max(found)[1]) if found else None


def _state(checkpoint: Path | str) -> dict[str, Any]:
    """Return what a checkpoint says of itself, in the last file of it to be written."""
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))


def _stopped(checkpoint: str | None) -> int | None:
    """Return after how many epochs training had stopped early, None if it had not."""
    if not checkpoint:
        return None
    state = _state(checkpoint)
    if not state.get("best_global_step"):  # there is no fold to watch
        return None
    best = state["epoch"] * state["best_global_step"] / state["global_step"]
    return round(state["epoch"]) if round(state["epoch"] - best) >= PATIENCE else None


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Tell a full disk from what else may go wrong in training."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if isinstance(error, SafetensorError) or _TORCH_CANNOT_WRITE in str(error):
            raise CannotKeep(
                f"cannot write to {folder}, is the disk full? ({str(error).splitlines()[0]})"
            ) from error
        raise


def _resuming(folder: Path, encoders: int) -> str | None:
    """Return what is there of an earlier run, in words, None if there is nothing."""
    done = len(list(folder.glob("encoder-*/done.json")))
    checkpoint = last_checkpoint(folder / f"encoder-{done + 1}")
    if not done and not checkpoint:
        return None
    epoch = 0
    if checkpoint:
        epoch = round(_state(checkpoint)["epoch"])
    return f"resuming fine-tuning: {done} of {encoders} encoders are done" + (
        f", encoder {done + 1} has {epoch} of {EPOCHS} epochs behind it" if epoch else ""
    )


def _arguments(folder: Path, seed: int, epochs: int, watched: bool) -> TrainingArguments:
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


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    hidden, mask = pad([row["hidden"] for row in rows])
    labels = torch.tensor([row[LABELS] for row in rows])
    return {"hidden": hidden, "attention_mask": mask, LABELS: labels}


def _metrics(prediction: Any) -> dict[str, float]:
    labels, logits = prediction.label_ids, prediction.predictions
    return {"average_precision": float(average_precision_score(labels, logits))}


def _history(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
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
