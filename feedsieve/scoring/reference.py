"""Reference outputs: the embeddings and scores that a model must give for a few texts.

Export writes them next to the ONNX file, training next to the classifier. Each load compares the
model's outputs with them: some CPU instructions give wrong embeddings without any error.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from feedsieve.scoring.backends import Backend
from feedsieve.scoring.json_file import JsonFile
from feedsieve.scoring.padding import batches, padded, padded_length

REFERENCE_FILE = "reference.json"
DIGITS = 8  # of an embedding's coordinates; enough to tell 32-bit floats below 1 apart
# Bounds on the cosine to the expected embeddings. Rounding in another order leaves 0.9997 and more
# of an int8 file; int8 products that saturate left 0.992, wrong bf16 products 0.91
# (docs/decisions/engine.md).
LOWEST_COSINE = {"int8": 0.999, "fp32": 0.9999}
MEAN_COSINE = {"int8": 0.9995, "fp32": 0.99999}
# Bounds on the difference to the expected scores, which are probabilities.
LARGEST_DIFFERENCE = 0.03
MEAN_DIFFERENCE = 0.003
PROBED = 4  # one reference batch in so many is timed: every length, in little time
TIMED_RUNS = 3  # of the probe, at least; the fastest counts
TIMED_SECONDS = 0.1  # at least: runs of a small encoder are too short to time


def _embeddings(values: Any) -> np.ndarray:
    return _array(values, np.float32, 2, "a list of embeddings")


def _scores(values: Any) -> np.ndarray:
    return _array(values, np.float64, 1, "a list of numbers")


def _array(values: Any, dtype: type, dimensions: int, wanted: str) -> np.ndarray:
    try:
        array: np.ndarray = np.array(values, dtype)
    except (TypeError, ValueError):
        raise ValueError(f"must be {wanted}") from None
    if array.ndim != dimensions:
        raise ValueError(f"must be {wanted}")
    return array


def _rounded(embeddings: np.ndarray) -> np.ndarray:
    return np.round(embeddings.astype(np.float64), DIGITS)


@dataclass(frozen=True)
class Agreement:
    """Cosines between embeddings and the expected ones, over all reference texts."""

    lowest_cosine: float
    mean_cosine: float

    def broken(self, precision: str) -> str | None:
        """Return the bound that is broken for a file of that precision, or None."""
        lowest, mean = LOWEST_COSINE[precision], MEAN_COSINE[precision]
        if not self.lowest_cosine >= lowest:
            return f"lowest cosine {self.lowest_cosine:.4f}, at least {lowest} is required"
        if not self.mean_cosine >= mean:
            return f"mean cosine {self.mean_cosine:.5f}, at least {mean} is required"
        return None


@dataclass(frozen=True)
class ReferenceEmbeddings(JsonFile):
    """Texts with their embeddings by PyTorch and as the ONNX file defines them.

    The two differ by quantisation: `expected` is the file computed operator by operator in 32-bit
    floats. Both are of shape (texts, dimension), of unit length.
    """

    file_name = REFERENCE_FILE

    texts: list[str]
    pytorch: Annotated[np.ndarray, BeforeValidator(_embeddings)]
    expected: Annotated[np.ndarray, BeforeValidator(_embeddings)]

    def __post_init__(self) -> None:
        count = len(self.texts)
        if not count or self.pytorch.shape != self.expected.shape or len(self.expected) != count:
            raise ValueError("texts and embeddings do not match")

    def compare(self, embeddings: np.ndarray) -> Agreement:
        """Return the agreement of `embeddings`, (texts, dimension), with the expected ones."""
        cosines = (embeddings * self.expected).sum(axis=1)
        return Agreement(float(cosines.min()), float(cosines.mean()))

    def write(self, folder: Path) -> None:
        rounded = replace(self, pytorch=_rounded(self.pytorch), expected=_rounded(self.expected))
        super(ReferenceEmbeddings, rounded).write(folder)


class ReferenceRun:
    """The reference texts as input of a backend: token ids in padded batches."""

    def __init__(
        self, reference: ReferenceEmbeddings, tokens: Sequence[Sequence[int]], max_tokens: int
    ) -> None:
        """`tokens` are the ids of each reference text."""
        self.reference = reference
        lengths = [padded_length(len(ids), max_tokens) for ids in tokens]
        self._rows = list(batches(lengths))
        self._inputs = [
            padded([tokens[row] for row in rows], lengths[rows[0]]) for rows in self._rows
        ]

    def embed(self, backend: Backend) -> np.ndarray:
        """Return the embeddings of all reference texts, (texts, dimension)."""
        pending = [backend.submit(inputs) for inputs in self._inputs]
        embeddings = np.empty_like(self.reference.expected)
        for rows, batch in zip(self._rows, pending, strict=True):
            embeddings[rows] = batch.result()
        return embeddings

    def compare(self, backend: Backend) -> Agreement:
        """Return the agreement of `backend` with the expected embeddings."""
        return self.reference.compare(self.embed(backend))

    def seconds(self, backend: Backend) -> float:
        """Return the time that `backend` takes for a sample of the batches, once it is warm."""
        probe = self._inputs[::PROBED]
        times: list[float] = []
        while len(times) <= TIMED_RUNS or sum(times[1:]) < TIMED_SECONDS:
            started = time.perf_counter()
            for batch in [backend.submit(inputs) for inputs in probe]:
                batch.result()
            times.append(time.perf_counter() - started)
        return min(times[1:])  # the first one compiles


@dataclass(frozen=True)
class ReferenceScores(JsonFile):
    """The scores of the encoder's reference texts, in their order, (texts,), from 0 to 1."""

    file_name = REFERENCE_FILE

    scores: Annotated[np.ndarray, BeforeValidator(_scores)]

    def broken(self, scores: np.ndarray) -> str | None:
        """Return the bound that `scores`, (texts,), break, or None."""
        if len(scores) != len(self.scores):
            return f"{len(self.scores)} reference scores for {len(scores)} reference texts"
        differences = np.abs(scores - self.scores)
        largest, mean = float(differences.max()), float(differences.mean())
        if not largest <= LARGEST_DIFFERENCE:
            return f"a score differs by {largest:.3f}, at most {LARGEST_DIFFERENCE} is allowed"
        if not mean <= MEAN_DIFFERENCE:
            return f"scores differ by {mean:.4f} on average, at most {MEAN_DIFFERENCE} is allowed"
        return None
