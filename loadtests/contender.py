"""One of the engines that are compared, in a process of its own, and what it is asked there."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from feedsieve import models
from feedsieve.encoder import Encoder
from loadtests import baselines, messages
from loadtests.baselines import Baselines
from loadtests.operators import by_operator

ONE_BY_ONE = "transformers, one text at a time"
EAGER = "transformers, batches sorted by length"
FP32 = "onnxruntime fp32, 12 layers, batches sorted by length"  # the baseline of the ratios
INT8 = "onnxruntime int8, Optimum's dynamic, batches sorted by length"
OURS = "feedsieve, 12 layers"
SERVED = "feedsieve, as served"
BATCHES = (1, 8, 64)
LENGTHS = (16, 32, 64, 96, 128)  # tokens; the shortest maximum of an encoder of ours is 160


class Engine(Protocol):
    """Turns texts into token ids and unit-length embeddings."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


class Contender:
    """A process with one engine in it, which answers what the functions below ask."""

    def __init__(self, name: str, of: Baselines, model: str) -> None:
        spawned = get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawned, _load, (name, of, model))

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.shutdown()

    def ask(self, question: Callable[..., Any], *about: Any) -> Any:
        """Return what `question`, a function of this module, returns in the engine's process."""
        return self._process.submit(question, *about).result()


_engine: Engine  # of this process
_precision: str


def _load(name: str, of: Baselines, model: str) -> None:
    global _engine, _precision
    if name == ONE_BY_ONE:
        _engine = baselines.Transformers(of, tokens_a_batch=1)
    elif name == EAGER:
        _engine = baselines.Transformers(of)
    elif name == OURS:
        _engine = Encoder(of.ours)
    elif name == SERVED:
        _engine = models.load_scorer(model).encoder
    else:
        _engine = baselines.OnnxRuntime(of.fp32 if name == FP32 else of.int8, of)
    if isinstance(_engine, Encoder):
        _precision = _engine.description.precision
    else:
        _precision = "int8" if name == INT8 else "fp32"


def describe(texts: list[str]) -> dict[str, Any]:
    """Return how many tokens each text has, and what the engine says of itself; it is warm then."""
    embeddings = _engine.encode(texts[:32])
    return {
        "dimension": embeddings.shape[1],
        "engine": _backend(),
        "precision": _precision,
        "tokens": [len(ids) for ids in _engine.tokenize(texts)],
    }


def _backend() -> str:
    return _engine.backend.spec.name if isinstance(_engine, Encoder) else "onnxruntime"


def seconds(texts: list[str]) -> float:
    """Return how long one call for all texts takes."""
    began = time.perf_counter()
    _engine.encode(texts)
    return time.perf_counter() - began


def seconds_each(texts: list[str]) -> list[float]:
    """Return how long a call for each text takes."""
    return [seconds([text]) for text in texts]


def texts_of_lengths(texts: list[str]) -> dict[int, list[str]]:
    """Return as many texts as are in the largest batch, for each number of tokens."""

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in _engine.tokenize(texts)]

    return {
        length: messages.of_length(texts, length, max(BATCHES), count_tokens) for length in LENGTHS
    }


def grid(texts: dict[int, list[str]], least: float) -> dict[str, float]:
    """Return messages a second by `batch×length`, each measured for at least so many seconds."""
    rates = {}
    for length, ones in texts.items():
        for batch in BATCHES:
            done, began = 0, time.perf_counter()
            while (taken := time.perf_counter() - began) < least:
                first = done % len(ones)
                _engine.encode(ones[first : first + batch])
                done += batch
            rates[f"{batch}×{length}"] = done / taken
    return rates


def operators(texts: list[str], file: Path) -> dict[str, float]:
    """Return the share of the time by operator of the engine's ONNX file, all texts in a batch."""
    spec = _engine.backend.spec if isinstance(_engine, Encoder) else None
    return by_operator(spec, file, _engine.tokenize(texts))
