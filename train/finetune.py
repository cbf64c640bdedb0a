"""Fine-tune the encoder: its upper layers learn the labels, first in folds, then of all messages.

The encoders of the folds are each trained without one fold of the messages. What each says of its
own fold is what LightGBM learns from, since it had not seen those labels. The last encoder is
trained on all messages, and is the one that is kept. It learns a message's label and that verdict
half and half, so that a wrong label, of which there are some, is not learnt by heart (as Reed et
al., https://arxiv.org/abs/1412.6596, do with a model's own predictions). What was tried is in
docs/decisions/finetuning.md.

The lower layers and the word vectors stay as they are, so their output is computed once, and a
step of training costs what its upper layers cost.

A smaller encoder (train/distil.py) may be given to learn in the large one's place. Then the folds
are judged twice: by large encoders, whose verdicts teach the last one, and by small ones, whose
verdicts LightGBM learns from, since a small one is what will speak to it. These are taught as the
last one is, but by large encoders that had seen neither of two folds: what such a one says of
either teaches the small one that is to judge the other. All layers of a small one learn: there are
few.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, set_seed

from export.sources import Source
from feedsieve import text
from feedsieve.calibration import Calibration
from feedsieve.features import Head
from feedsieve.files import one_run_at_a_time, open_whole
from train import classifier, layers
from train import trainer as training
from train.evaluate import fit_platt
from train.kept import run_key
from train.layers import UpperLayers, lower_layers, pad
from train.trainer import (
    BATCH,
    LABELS,
    LengthTrainer,
    StepProgress,
    arguments,
    checkpoint_state,
    epochs_of,
    keeping,
    last_checkpoint,
)

FOLDS = 3  # each has an encoder that does not see its messages
FROZEN = 2 / 3  # of the layers, from the bottom; see docs/decisions/finetuning.md
MAX_TOKENS = 160  # longer messages are cut, when they are learnt and when they are scored
EPOCHS = 3
PATIENCE = 1  # epochs without a better average precision
RATE = 2e-4  # AdamW's, at its highest
STUDENT_RATE = 1.5e-4  # of a small encoder, all of whose layers learn
HEAD_RATE = 2e-3
WEIGHT_DECAY = 0.01
TRUST = 0.5  # in a label, where a verdict is learnt as well; the rest is in that


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning leaves."""

    source: Source  # the encoder with its new weights
    head: Head  # on its embeddings
    verdicts: np.ndarray  # logits of positive, (texts,), by encoders that had not seen the label
    history: list[dict[str, float]]  # encoder, layers, epoch, loss, average precision on the fold
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


def finetune(
    source: Source,
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    cache: Path,
    student: Source | None = None,
) -> FineTuned:
    """Return `source` with upper layers that have learnt `labels`, 0 or 1, (texts,).

    One encoder is trained for each of `FOLDS` folds, which keep `groups`, (texts,), whole, and one
    on all texts, for as many epochs as those took to their best on average. With a `student`, an
    encoder of the same tokens, it is the student that learns and is returned; encoders like
    `source` are trained for the folds, and for pairs of them, as well, and it is their verdicts
    that students learn. Each epoch is kept below `cache` until `FineTuned.forget`, so that a run
    that was killed goes on where it was if it is started again with the same arguments.

    Raises ValueError if a label is in fewer than two groups, RunningAlready, and CannotKeep.
    """
    source = replace(source, max_tokens=min(MAX_TOKENS, source.max_tokens))
    parts = list(classifier.folds(labels, groups, seed, FOLDS))
    folds = [fold.tolist() for _rest, fold in parts]
    code = [sys.modules[__name__], layers, training, text]
    key = run_key(source, code, [list(texts), labels.tolist(), folds, seed])
    folder = cache / f"finetune-{key}"
    frozen = round(FROZEN * source.model.config.num_hidden_layers)
    learners = [_Learner(source, frozen, RATE, "encoder")]
    if student:
        student = replace(student, max_tokens=source.max_tokens)
        learners.append(_Learner(student, 0, STUDENT_RATE, f"student-{run_key(student, [], [])}"))
    with one_run_at_a_time(folder):
        return _finetune(learners, texts, labels, parts, seed, folder)


@dataclass(frozen=True)
class _Learner:
    """An encoder that is to learn labels."""

    source: Source
    frozen: int  # layers, from the bottom
    rate: float
    name: str  # before what else the folders are called that it is kept in

    @property
    def layers(self) -> int:
        return self.source.model.config.num_hidden_layers

    def prepare(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Return what the frozen layers make of each text."""
        return lower_layers(self.source, texts, self.frozen)


@dataclass(frozen=True)
class _Task:
    """A training of one encoder: which messages it learns, and which it is to judge."""

    learner: _Learner
    name: str  # of the folder that it is kept in
    learnt: np.ndarray  # rows
    judged: np.ndarray  # rows
    watched: bool  # it stops early, going by how well it judges


def _finetune(
    learners: Sequence[_Learner],
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    folder: Path,
) -> FineTuned:
    """Train each of `learners` in folds, and the last of them on all texts."""
    large, last = learners[0], learners[-1]
    judges = _judges(large, parts)
    students = _judges(last, parts) if last is not large else []
    advisers = _advisers(large, parts) if students else {}
    nobody = np.empty(0, np.int64)
    final = _Task(last, f"{last.name}-last", np.arange(len(texts)), nobody, watched=False)
    tasks = [*judges, *advisers.values(), *students, final]
    if said := _resuming([folder / task.name for task in tasks]):
        print(said)
    prepared = [learner.prepare(texts) for learner in learners]
    with tqdm(desc="fine-tune", unit="step", smoothing=0.05) as bar:
        course = _Course(tasks, labels, seed, folder, bar)
        hidden = prepared[0]
        verdicts = taught = course.judge(judges, hidden, [labels] * len(parts))
        if students:
            lessons = course.advise(advisers, parts, hidden)
            hidden = prepared[-1]
            verdicts = course.judge(students, hidden, lessons)
        epochs = round(np.mean([found.best_epoch for found in course.found[-len(parts) :]]))
        targets = _half(labels, taught)  # by the largest, which errs least
        found = course.train(final, hidden, targets, epochs)
    tuned = UpperLayers(last.source, last.frozen)
    tuned.load_state_dict(found.state)
    source, head = tuned.merged(last.source), tuned.head_of_encoder()
    return FineTuned(source, head, verdicts, course.history, folder)


def _judges(learner: _Learner, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[_Task]:
    """Return the trainings of those that are each to judge the one fold that they do not learn."""
    return [
        _Task(learner, f"{learner.name}-{number}", rest, fold, watched=True)
        for number, (rest, fold) in enumerate(parts, 1)
    ]


def _advisers(
    learner: _Learner, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[tuple[int, int], _Task]:
    """Return, by the pair of folds that they judge and do not learn, the trainings of advisers.

    Nobody watches how well they judge: it would tell them when to stop, by labels of both folds.
    There are none if two folds are all.
    """
    folds = [fold for _rest, fold in parts]
    tasks = {}
    for pair in combinations(range(len(folds)), 2):
        judged = np.concatenate([folds[number] for number in pair])
        others = [fold for number, fold in enumerate(folds) if number not in pair]
        if others:
            name = f"{learner.name}-without-{pair[0] + 1}-{pair[1] + 1}"
            learnt = np.sort(np.concatenate(others))
            tasks[pair] = _Task(learner, name, learnt, judged, watched=False)
    return tasks


def _half(labels: np.ndarray, verdicts: np.ndarray) -> np.ndarray:
    """Return what is learnt of messages, from 0 to 1: labels, and verdicts (logits) of them."""
    believed = Calibration(*fit_platt(verdicts, labels)).apply(verdicts)
    return TRUST * labels + (1 - TRUST) * believed


class _Course:
    """Trains encoders one after the other, and shows how far all are."""

    def __init__(
        self, tasks: Sequence[_Task], labels: np.ndarray, seed: int, folder: Path, bar: tqdm
    ) -> None:
        """`tasks` are all that will be trained, in that order."""
        self._tasks = tasks
        self._labels = labels
        self._seed = seed
        self._folder = folder
        self._progress = Progress(bar, [len(task.learnt) for task in tasks])
        self.found: list[_Trained] = []

    @property
    def history(self) -> list[dict[str, float]]:
        return [
            {"encoder": number, "layers": task.learner.layers, **epoch}
            for number, (task, found) in enumerate(zip(self._tasks, self.found, strict=True), 1)
            for epoch in found.history
        ]

    def train(
        self, task: _Task, hidden: Sequence[torch.Tensor], targets: np.ndarray, epochs: int
    ) -> "_Trained":
        """Train one on `targets`, from 0 to 1, (texts,), of which it sees those that it learns."""
        number = len(self.found) + 1
        seed = self._seed + (number if number < len(self._tasks) else 0)
        set_seed(seed)
        place = self._folder / task.name
        encoder = _Encoder(place, seed, task.learner.rate, self._progress)
        model = UpperLayers(task.learner.source, task.learner.frozen)
        messages = Messages(hidden, targets).part(task.learnt)
        fold = Messages(hidden, self._labels).part(task.judged) if len(task.judged) else None
        found = encoder.train(model, epochs, messages, fold, task.watched)
        self.found.append(found)
        return found

    def judge(
        self, judges: Sequence[_Task], hidden: Sequence[torch.Tensor], targets: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the verdicts, (texts,), of those who judge a fold each, once they are trained."""
        verdicts = np.empty(len(hidden))
        for judge, taught in zip(judges, targets, strict=True):
            verdicts[judge.judged] = self.train(judge, hidden, taught, EPOCHS).verdicts
        return verdicts

    def advise(
        self,
        advisers: Mapping[tuple[int, int], _Task],
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
        hidden: Sequence[torch.Tensor],
    ) -> list[np.ndarray]:
        """Return what each fold's student learns, (texts,); of the fold itself that is nothing."""
        verdicts = np.full((len(parts), len(hidden)), np.nan)
        for (one, other), adviser in advisers.items():
            said = np.empty(len(hidden))
            said[adviser.judged] = self.train(adviser, hidden, self._labels, EPOCHS).verdicts
            for student, judged in ((one, other), (other, one)):
                fold = parts[judged][1]
                verdicts[student, fold] = said[fold]
        lessons = []
        for (rest, _fold), advice in zip(parts, verdicts, strict=True):
            lesson = self._labels.astype(np.float64)
            if advisers:
                lesson[rest] = _half(self._labels[rest], advice[rest])
            lessons.append(lesson)
        return lessons


class Progress(StepProgress):
    """Shows how far all encoders are, the loss, and the average precision on the held-out fold."""

    def __init__(self, bar: tqdm, sizes: Sequence[int]) -> None:
        """`sizes` are the numbers of messages that the encoders, one after the other, learn."""
        super().__init__(bar)
        self.steps = [EPOCHS * -(-size // BATCH) for size in sizes]
        self.bar.total = sum(self.steps)
        self.encoder = 0

    def finish_encoder(self) -> None:
        """Go on to the next encoder; steps of this one that were not needed count as done."""
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
    rate: float
    progress: Progress

    def train(
        self,
        model: UpperLayers,
        epochs: int,
        messages: Messages,
        fold: Messages | None,
        watched: bool,
    ) -> _Trained:
        """Train `model`, unless that was done before, and let it judge `fold`.

        If that is watched it stops early.
        """
        done = self.folder / "done.json"
        if not done.exists():
            newest = last_checkpoint(self.folder)
            watch = fold if watched else None
            trainer = self._trainer(model, _stopped(newest) or epochs, messages, watch)
            with keeping(self.folder):
                trainer.train(resume_from_checkpoint=newest)
            verdicts = np.asarray(trainer.predict(fold).predictions).tolist() if fold else []
            state = {name: value.cpu() for name, value in model.state_dict().items()}
            with keeping(self.folder):
                save_file(state, self.folder / "state.safetensors")
            told = {"verdicts": verdicts, "history": epochs_of(trainer.state.log_history)}
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
        optimizer = torch.optim.AdamW(groups, lr=self.rate, weight_decay=WEIGHT_DECAY, fused=True)
        callbacks: list[TrainerCallback] = [self.progress]
        if fold:
            callbacks.append(EarlyStoppingCallback(PATIENCE))
        trainer = LengthTrainer(
            model=model,
            args=arguments(self.folder, self.seed, epochs, watched=fold is not None),
            train_dataset=messages,
            eval_dataset=fold,
            data_collator=_collate,
            compute_metrics=_metrics,
            optimizers=(optimizer, None),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def _stopped(checkpoint: str | None) -> int | None:
    """Return after how many epochs training had stopped early, None if it had not."""
    if not checkpoint:
        return None
    state = checkpoint_state(checkpoint)
    if not state.get("best_global_step"):  # there is no fold to watch
        return None
    best = state["epoch"] * state["best_global_step"] / state["global_step"]
    return round(state["epoch"]) if round(state["epoch"] - best) >= PATIENCE else None


def _resuming(places: Sequence[Path]) -> str | None:
    """Return what is there of an earlier run, in words, None if there is nothing."""
    done = sum((place / "done.json").exists() for place in places)
    checkpoint = last_checkpoint(places[done]) if done < len(places) else None
    if not done and not checkpoint:
        return None
    epoch = round(checkpoint_state(checkpoint)["epoch"]) if checkpoint else 0
    return f"resuming fine-tuning: {done} of {len(places)} encoders are done" + (
        f", encoder {done + 1} has {epoch} of {EPOCHS} epochs behind it" if epoch else ""
    )


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    hidden, mask = pad([row["hidden"] for row in rows])
    labels = torch.tensor([row[LABELS] for row in rows])
    return {"hidden": hidden, "attention_mask": mask, LABELS: labels}


def _metrics(prediction: Any) -> dict[str, float]:
    labels, logits = prediction.label_ids, prediction.predictions
    return {"average_precision": float(average_precision_score(labels, logits))}
