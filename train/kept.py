"""What a long run leaves to go on from: whose it is."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from export.sources import Source


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
