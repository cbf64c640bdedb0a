"""What a long run leaves to go on from: whose it is, and who may use it now."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from export.sources import Source


class RunningAlready(RuntimeError):
    """Another process is at the same work; the message says where what it keeps is."""


def run_key(source: Source, code: Sequence[ModuleType], facts: Any) -> str:
    """Return 16 hexadecimal digits that tell apart runs that must not go on from one another.

    They follow from the encoder (weights, tokenizer, pooling, prefix, tokens), from the files of
    the modules in `code`, and from `facts`, which JSON can write: data, folds, seed.
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


@contextmanager
def one_run_at_a_time(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if it is not there. Raises RunningAlready if another does.

    The hold ends with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunningAlready(
                f"another run is at the same work and keeps it in {folder}; let it end first"
            ) from error
        yield
