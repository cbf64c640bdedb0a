"""Distillation: a student of a few of the teacher's layers that reproduces the teacher's output.

The student starts as some of the teacher's layers. Training minimises the mean squared error
between its last hidden states and the teacher's, for each token of a transfer set of unlabelled
texts. As no labels are used, one student serves all folds; train/encoder/finetune.py then trains it
on labels. docs/decisions/distillation.md has costs and losses.

The teacher's outputs are stored in a file: computing them in each epoch would cost about as much as
the student's own training.
"""

import copy
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import set_seed

from export.sources import Source
from feedsieve import text
from feedsieve.files import atomic_path, one_run_at_a_time
from feedsieve.text import plain
from train.encoder import layers, trainer
from train.encoder.checkpoints import Checkpoints, full_disk_named, run_key
from train.encoder.finetune import MAX_TOKENS
from train.encoder.layers import StudentLayers, hidden_states, longest_first, pad, tokenize
from train.encoder.trainer import (
    BATCH,
    LengthGroupedTrainer,
    StepProgress,
    summarise_epochs,
    training_arguments,
)

MAX_TEXTS = 10_000  # in a transfer set; each takes 70 kB on disk, one of 160 tokens 120 kB
EPOCHS = 6
RATE = 3e-4  # AdamW's peak learning rate
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Student:
    """A distilled encoder that was not trained on labels yet."""

    source: Source
    layers: tuple[int, ...]  # of the teacher, from 0
    teacher_layers: int
    texts: int  # in the transfer set
    history: list[dict[str, float]]  # epoch, and loss as a fraction of the teacher's variance
    checkpoints: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """The entry of metrics.json."""
        return {
            "layers": list(self.layers),
            "of": self.teacher_layers,
            "texts": self.texts,
            "history": self.history,
        }

    def remove_checkpoints(self) -> None:
        """Remove all that is needed to resume, once the model is saved."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def transfer_set(
    labelled: Sequence[str], stored: Iterable[str], held_out: Iterable[str], seed: int
) -> list[str]:
    """Return the texts to distil on, at most `MAX_TEXTS`, without duplicates.

    They are the `labelled` texts, then a random sample of the `stored` ones, without any that is
    equal to a `held_out` text once it is preprocessed (`feedsieve.text.plain`). With an earlier
    result as `stored` it is the same again.
    """
    own = {plain(text): text for text in labelled}
    excluded = own.keys() | {plain(text) for text in held_out}
    others: dict[str, str] = {}
    for stored_text in stored:
        if (key := plain(stored_text)) not in excluded:
            others.setdefault(key, stored_text)
    keys = sorted(others)
    sample = np.random.default_rng(seed).permutation(len(keys))[: max(0, MAX_TEXTS - len(own))]
    return [*own.values(), *(others[keys[place]] for place in sorted(sample))][:MAX_TEXTS]


def distil(
    teacher: Source, kept: Sequence[int], texts: Sequence[str], seed: int, cache: Path
) -> Student:
    """Return a student of the layers `kept` of `teacher`, trained to reproduce it on `texts`.

    The word embeddings stay frozen. Checkpoints below `cache` let an interrupted run with the same
    arguments resume. Raises AlreadyRunning and CheckpointError.
    """
    teacher = replace(teacher, max_tokens=min(MAX_TOKENS, teacher.max_tokens))
    code = [sys.modules[__name__], sys.modules[run_key.__module__], layers, trainer, text]
    folder = cache / f"distil-{run_key(teacher, code, [list(texts), list(kept), seed])}"
    checkpoints = Checkpoints(folder)
    student = _initial_student(teacher, kept)
    with one_run_at_a_time(folder):
        if checkpoints.is_complete:
            print(f"{student.name}: distillation is complete already")
        else:
            _train(student, teacher, texts, seed, checkpoints)
        weights, values = checkpoints.result()
    trained = StudentLayers(student, 1.0)
    trained.load_state_dict(weights)
    return Student(
        trained.merged(student),
        tuple(kept),
        teacher.model.config.num_hidden_layers,
        len(texts),
        values["history"],
        folder,
    )


def _initial_student(teacher: Source, kept: Sequence[int]) -> Source:
    """Return an encoder of the layers `kept` of `teacher`, before distillation."""
    model = copy.deepcopy(teacher.model)
    count = model.config.num_hidden_layers
    model.encoder.layer = nn.ModuleList(model.encoder.layer[number] for number in kept)
    model.config.num_hidden_layers = len(kept)
    return replace(teacher, name=f"{teacher.name}, {len(kept)} of {count} layers", model=model)


def _train(
    student: Source, teacher: Source, texts: Sequence[str], seed: int, checkpoints: Checkpoints
) -> None:
    """Distil, or resume, and save the result in `checkpoints`."""
    tokens = tokenize(teacher, texts)
    file = checkpoints.folder / "targets"
    states = teacher_states(file, teacher, tokens)
    set_seed(seed)
    model = StudentLayers(student, mean_variance(states[row] for row in longest_first(tokens)))
    examples = Examples(tokens, states)
    if done := checkpoints.epochs_done:
        print(f"resuming distillation: {done} of {EPOCHS} epochs are done")
    optimizer = torch.optim.AdamW(
        model.layers.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    with tqdm(desc="distil", unit="step", smoothing=0.05) as bar:
        bar.total = EPOCHS * -(-len(examples) // BATCH)
        loop = LengthGroupedTrainer(
            model=model,
            args=training_arguments(checkpoints.folder, seed, EPOCHS, early_stopping=False),
            train_dataset=examples,
            data_collator=partial(collate, student.model.embeddings.eval()),
            optimizers=(optimizer, None),
            callbacks=[StepProgress(bar)],
        )
        checkpoints.train(loop)
    checkpoints.complete(model, {"history": summarise_epochs(loop.state.log_history)})
    file.unlink()


class Examples(Dataset):
    """Token ids of texts, with the teacher's hidden states."""

    def __init__(self, tokens: Sequence[Sequence[int]], targets: Sequence[np.ndarray]) -> None:
        """`targets` are (tokens, hidden size) each, and may be memory-mapped."""
        self.tokens = tokens
        self.targets = targets
        self.lengths = [len(row) for row in tokens]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {
            "tokens": torch.tensor(self.tokens[row]),
            "targets": torch.from_numpy(np.array(self.targets[row])),
        }


def collate(
    embeddings: nn.Module, rows: Sequence[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Collate a batch, and apply the frozen `embeddings`.

    As part of the model the word embeddings would be written to each checkpoint.
    """
    tokens, mask = pad([row["tokens"] for row in rows])
    targets, _mask = pad([row["targets"] for row in rows])
    with torch.no_grad():
        hidden = embeddings(tokens)
    return {"hidden": hidden, "attention_mask": mask, "targets": targets}


def teacher_states(
    file: Path, teacher: Source, tokens: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Return the teacher's last hidden states of each text, (tokens, hidden size), 16-bit.

    They are memory-mapped from `file`, which is computed if it does not exist, with a progress bar.
    Raises CheckpointError.
    """
    config = teacher.model.config
    if not file.exists():
        rows = hidden_states(
            teacher, tokens, config.num_hidden_layers, torch.float16, "teacher outputs"
        )
        # Not a memory map: writing to one on a full disk kills the process without a message.
        with (
            full_disk_named(file.parent),
            atomic_path(file) as unfinished,
            unfinished.open("wb") as out,
        ):
            for _row, states in rows:
                out.write(states.numpy().tobytes())
    outputs = np.memmap(file, np.float16, "r").reshape(-1, config.hidden_size)
    order = longest_first(tokens)
    ends = np.cumsum([len(tokens[row]) for row in order])
    by_row = dict(zip(order, np.split(outputs, ends[:-1]), strict=True))
    return [by_row[row] for row in range(len(tokens))]


def mean_variance(rows: Iterable[np.ndarray]) -> float:
    """Return the variance of the values in each dimension, averaged over dimensions."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for values in rows:
        exact = values.astype(np.float64)
        count += len(exact)
        total = total + exact.sum(axis=0)
        squares = squares + np.square(exact).sum(axis=0)
    return float((squares / count - np.square(total / count)).mean())
