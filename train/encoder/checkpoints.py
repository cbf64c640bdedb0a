"""Checkpoints of long trainings: interrupted runs resume, complete runs are not repeated."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from export.sources import Source
from feedsieve.errors import FeedsieveError
from feedsieve.files import open_atomically

_TORCH_CANNOT_WRITE = "PytorchStreamWriter"  # all that PyTorch's RuntimeError says of a full disk


class CheckpointError(FeedsieveError):
    """A checkpoint cannot be written; the message says where and why."""


@dataclass(frozen=True)
class Checkpoints:
    """The folder of one training: its checkpoints, then its result.

    The result is the model's weights, and values as JSON.
    """

    folder: Path

    @property
    def is_complete(self) -> bool:
        return self._values.exists()

    @property
    def newest(self) -> str | None:
        """The newest complete checkpoint, if there is one."""
        complete = []
        for checkpoint in self.folder.glob("checkpoint-*"):
            try:
                complete.append((checkpoint_state(checkpoint)["global_step"], checkpoint))
            except (OSError, ValueError, KeyError):  # interrupted while it was written
                continue
        return str(max(complete)[1]) if complete else None

    @property
    def epochs_done(self) -> int:
        newest = self.newest
        return round(checkpoint_state(newest)["epoch"]) if newest else 0

    def train(self, trainer: Trainer) -> None:
        """Train, from the newest checkpoint if there is one. Raises CheckpointError."""
        with full_disk_named(self.folder):
            trainer.train(resume_from_checkpoint=self.newest)

    def complete(self, model: nn.Module, values: Mapping[str, Any]) -> None:
        """Save the result and remove the checkpoints. Raises CheckpointError."""
        weights = {name: value.cpu() for name, value in model.state_dict().items()}
        with full_disk_named(self.folder):
            save_file(weights, self._weights)
        with open_atomically(self._values) as file:
            json.dump(values, file)
        for checkpoint in self.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the weights and the values that `complete` saved."""
        return load_file(self._weights), json.loads(self._values.read_text(encoding="utf-8"))

    @property
    def _weights(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def _values(self) -> Path:
        return self.folder / "done.json"


def checkpoint_state(checkpoint: Path | str) -> dict[str, Any]:
    """Return the trainer's state in a checkpoint; its file is the last one to be written."""
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn the errors that libraries raise on a full disk into CheckpointError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and _TORCH_CANNOT_WRITE not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"cannot write to {folder}, is the disk full? ({reason})") from error


def run_key(source: Source, code: Sequence[ModuleType], facts: Any) -> str:
    """Return 16 hexadecimal digits that identify a run: equal keys may share checkpoints.

    They depend on the encoder (weights, tokenizer, pooling, prefix, token limit), on the code of
    the modules, and on `facts`, any value that JSON can write, such as data, folds and seed.
    """
    tokenizer = json.loads(source.tokenizer.backend_tokenizer.to_str())
    for set_by_use in ("truncation", "padding"):
        tokenizer.pop(set_by_use)
    encoder = [source.name, source.pooling, source.prefix, source.max_tokens, tokenizer]
    digest = blake2b(json.dumps([encoder, facts]).encode(), digest_size=8)
    for module in code:
        digest.update(Path(str(module.__file__)).read_bytes())
    for value in source.model.state_dict().values():
        digest.update(value.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
