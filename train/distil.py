"""A smaller encoder: some layers of a large one, which learn to give what all of them gave.

The student begins as those layers and imitates the whole: the mean squared error between its last
layer's output and the whole's is made small, token by token, on every text that it may see. Labels
have no part in that, so it is done once, before there are folds. The student then learns the labels
in train/finetune.py. What it costs and what it loses is in docs/decisions/distillation.md.

What the whole gives is computed once and kept in a file: in every epoch it would cost about as much
as the student's own work.
"""

import copy
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PrinterCallback, set_seed

from export.sources import Source
from feedsieve import text
from feedsieve.files import one_run_at_a_time, open_whole
from feedsieve.text import plain
from train import layers
from train import trainer as training
from train.finetune import MAX_TOKENS
from train.kept import run_key
from train.layers import ImitatingLayers, layer_states, longest_first, pad, tokens_of
from train.trainer import (
    BATCH,
    CannotKeep,
    LengthTrainer,
    StepProgress,
    arguments,
    checkpoint_state,
    epochs_of,
    keeping,
    last_checkpoint,
)

ALL = "all"  # layers are kept: there is no student
FEW = 3  # are kept if nobody says how many: docs/decisions/distillation.md
MOST_TEXTS = 10_000  # what the whole gives of each takes 70 kB on disk, of 160 tokens 120 kB
EPOCHS = 6
RATE = 3e-4  # AdamW's, at its highest
WEIGHT_DECAY = 0.01
_NUMBERS = re.compile(r"\d{1,4}(,\d{1,4})*", re.ASCII)


class NoSuchLayers(ValueError):
    """An encoder cannot be made of the layers that were asked for; the message says why."""


@dataclass(frozen=True)
class Student:
    """A smaller encoder that imitates a larger one, and has learnt no labels."""

    source: Source
    layers: tuple[int, ...]  # of the larger one, from 0
    of: int  # layers that the larger one has
    texts: int  # that it has imitated the larger one on
    history: list[dict[str, float]]  # epoch, and loss: the share of variance that it missed
    kept: Path  # where it is, until `forget`

    @property
    def described(self) -> dict[str, Any]:
        """How it was made, as metrics.json has it."""
        return {
            "layers": list(self.layers),
            "of": self.of,
            "texts": self.texts,
            "history": self.history,
        }

    def forget(self) -> None:
        """Remove what was kept to go on from, once the result is safe."""
        shutil.rmtree(self.kept, ignore_errors=True)


def is_layers(asked: str) -> bool:
    """Return whether `layers_of` can read `asked`, whatever the encoder has."""
    return asked == ALL or bool(_NUMBERS.fullmatch(asked))


def layers_of(asked: str | None, count: int) -> tuple[int, ...]:
    """Return which of an encoder's `count` layers are kept, from 0, in order.

    `asked` is how many, which are then spread evenly, the first and the last among them, or two
    and more numbers of layers with commas between, or "all", or None for `FEW`, or all if there are
    no more. Raises NoSuchLayers.
    """
    if asked is None:
        asked = str(min(FEW, count))
    if asked == ALL:
        return tuple(range(count))
    if not is_layers(asked):
        raise NoSuchLayers(f"{asked!r} is neither a number of layers nor a list like 0,2,4")
    numbers = [int(number) for number in asked.split(",")]
    if len(numbers) == 1:
        [kept] = numbers
        if not 1 <= kept <= count:
            raise NoSuchLayers(f"the encoder has {count} layers: keep 1 to {count}, not {kept}")
        if kept == 1:
            return (0,)
        return tuple(min(place * count // (kept - 1), count - 1) for place in range(kept))
    if numbers[-1] >= count or sorted(set(numbers)) != numbers:
        raise NoSuchLayers(
            f"the encoder has layers 0 to {count - 1}: name some of them, rising, not {asked}"
        )
    return tuple(numbers)


def texts_to_imitate(
    learnt: Sequence[str], stored: Iterable[str], withheld: Iterable[str], seed: int
) -> list[str]:
    """Return the texts that a student may see, at most `MOST_TEXTS`, none twice.

    They are those in `learnt`, then of those in `stored` as many as there is room for, drawn by
    `seed`, without any that a model reads as it reads one in `withheld`.
    """
    own = {plain(text): text for text in learnt}
    taken = own.keys() | {plain(text) for text in withheld}
    others: dict[str, str] = {}
    for stored_text in stored:
        if (read := plain(stored_text)) not in taken:
            others.setdefault(read, stored_text)
    found = list(own.values())
    room = max(0, MOST_TEXTS - len(found))
    reads = sorted(others)
    drawn = np.random.default_rng(seed).permutation(len(reads))[:room]
    return (found + [others[reads[place]] for place in drawn])[:MOST_TEXTS]


def imitate(
    source: Source, kept: Sequence[int], texts: Sequence[str], seed: int, cache: Path
) -> Student:
    """Return an encoder of the layers `kept` of `source` that gives what `source` gives of `texts`.

    The word vectors stay as they are. Each epoch is kept below `cache` until `Student.forget`, so
    that a run that was killed goes on where it was if it is started again with the same arguments.

    Raises RunningAlready and CannotKeep.
    """
    source = replace(source, max_tokens=min(MAX_TOKENS, source.max_tokens))
    code = [sys.modules[__name__], layers, training, text]
    folder = cache / f"distil-{run_key(source, code, [list(texts), list(kept), seed])}"
    with one_run_at_a_time(folder):
        return _imitate(source, tuple(kept), texts, seed, folder)


def _imitate(
    source: Source, kept: tuple[int, ...], texts: Sequence[str], seed: int, folder: Path
) -> Student:
    state, done = folder / "state.safetensors", folder / "done.json"
    student = _some_layers(source, kept)
    if done.exists():
        print(f"{student.name}: imitating was done before")
    else:
        tokens = tokens_of(source, texts)
        targets = _Targets.read(folder) or _Targets.write(folder, source, tokens)
        lessons = Lessons(tokens, targets.rows(tokens, source.model.config.hidden_size))
        set_seed(seed)
        model = ImitatingLayers(student, targets.variance)
        log = _train(model, student.model.embeddings, lessons, seed, folder)
        with keeping(folder):
            save_file({name: value.cpu() for name, value in model.state_dict().items()}, state)
        with open_whole(done) as file:
            json.dump(epochs_of(log), file)
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        targets.forget()
    history = json.loads(done.read_text(encoding="utf-8"))
    model = ImitatingLayers(student, 1.0)
    model.load_state_dict(load_file(state))
    count = source.model.config.num_hidden_layers
    return Student(model.put_into(student, student.name), kept, count, len(texts), history, folder)


def _some_layers(source: Source, kept: Sequence[int]) -> Source:
    """Return an encoder of some layers of `source`, which have not learnt to do without others."""
    model = copy.deepcopy(source.model)
    count = model.config.num_hidden_layers
    model.encoder.layer = nn.ModuleList(model.encoder.layer[number] for number in kept)
    model.config.num_hidden_layers = len(kept)
    return replace(source, name=f"{source.name}, {len(kept)} of {count} layers", model=model)


def _train(
    model: ImitatingLayers, embeddings: nn.Module, lessons: "Lessons", seed: int, folder: Path
) -> list[dict[str, float]]:
    """Train `model`, on from where an earlier run was; return what the trainer logged."""
    newest = last_checkpoint(folder)
    if newest:
        epoch = round(checkpoint_state(newest)["epoch"])
        print(f"resuming imitation: {epoch} of {EPOCHS} epochs are done")
    optimizer = torch.optim.AdamW(
        model.layers.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    with tqdm(desc="imitate", unit="step", smoothing=0.05) as bar:
        bar.total = EPOCHS * -(-len(lessons) // BATCH)
        trainer = LengthTrainer(
            model=model,
            args=arguments(folder, seed, EPOCHS, watched=False),
            train_dataset=lessons,
            data_collator=_Collate(embeddings),
            optimizers=(optimizer, None),
            callbacks=[StepProgress(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        with keeping(folder):
            trainer.train(resume_from_checkpoint=newest)
    return trainer.state.log_history


class Lessons(Dataset):
    """Tokens of texts, and what the larger encoder makes of them."""

    def __init__(self, tokens: Sequence[Sequence[int]], targets: Sequence[np.ndarray]) -> None:
        """`targets` are (tokens, hidden size), in a file if there are many."""
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


class _Collate:
    """Makes a batch of lessons, with what the embedding layer, which does not learn, makes of it.

    Within the model its word vectors would be written to every checkpoint.
    """

    def __init__(self, embeddings: nn.Module) -> None:
        self.embeddings = embeddings.eval()

    @torch.no_grad()
    def __call__(self, rows: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        tokens, mask = pad([row["tokens"] for row in rows])
        targets, _mask = pad([row["targets"] for row in rows])
        return {"hidden": self.embeddings(tokens), "attention_mask": mask, "targets": targets}


@dataclass(frozen=True)
class _Targets:
    """What the larger encoder makes of all tokens, 16-bit floats in a file, longest text first."""

    folder: Path
    variance: float  # of their numbers, each dimension about its own mean

    @classmethod
    def read(cls, folder: Path) -> "_Targets | None":
        """Return what an earlier run wrote, None if it did not come to the end."""
        try:
            told = json.loads((folder / "targets.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(folder, told["variance"])

    @classmethod
    def write(cls, folder: Path, source: Source, tokens: Sequence[Sequence[int]]) -> "_Targets":
        """Compute them, with a progress bar. Raises CannotKeep."""
        count = source.model.config.num_hidden_layers
        size = source.model.config.hidden_size
        number, total, squares = 0, np.zeros(size), np.zeros(size)
        try:
            # Not through a memory map: on a full disk the process would be killed without a word.
            with (folder / "targets").open("wb") as file:
                for _row, states in layer_states(
                    source, tokens, count, torch.float16, "what to imitate"
                ):
                    values = states.numpy()
                    file.write(values.tobytes())
                    exact = values.astype(np.float64)
                    number += len(exact)
                    total += exact.sum(axis=0)
                    squares += np.square(exact).sum(axis=0)
            variance = float((squares / number - np.square(total / number)).mean())
            with open_whole(folder / "targets.json") as told:
                json.dump({"variance": variance}, told)
        except OSError as error:
            raise CannotKeep(
                f"cannot write to {folder}, is the disk full? ({error.strerror})"
            ) from error
        return cls(folder, variance)

    def rows(self, tokens: Sequence[Sequence[int]], size: int) -> list[np.ndarray]:
        """Return what is made of each of `tokens`, (tokens, size); it stays in the file."""
        everything = np.memmap(self.folder / "targets", np.float16, "r").reshape(-1, size)
        found: list[np.ndarray] = [np.empty((0, size))] * len(tokens)
        start = 0
        for row in longest_first(tokens):
            end = start + len(tokens[row])
            found[row] = everything[start:end]
            start = end
        return found

    def forget(self) -> None:
        for name in ("targets.json", "targets"):  # in this order: one says that the other is whole
            (self.folder / name).unlink(missing_ok=True)
