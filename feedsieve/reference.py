"""Reference outputs: what a model must give for a few texts, on whatever CPU it is loaded.

Export writes them beside the ONNX file and training beside the classifier, so they travel with the
models. Whoever loads a model compares its outputs with them first: instructions that CPUs differ in
have given wrong embeddings without any error.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "reference.json"
DIGITS = 8  # of an embedding's coordinates; more than 32-bit floats below 1 differ in
# Bounds on the cosine to the expected embeddings. Rounding in another order leaves 0.9997 and more
# of an int8 file; int8 products that saturate left 0.992, wrong bf16 products 0.91
# (docs/decisions/engine.md).
LOWEST_COSINE = {"int8": 0.999, "fp32": 0.9999}
MEAN_COSINE = {"int8": 0.9995, "fp32": 0.99999}
# Bounds on the difference to the expected scores, which are probabilities.
LARGEST_DIFFERENCE = 0.03
MEAN_DIFFERENCE = 0.003


@dataclass(frozen=True)
class Agreement:
    """Cosines between embeddings and the expected ones, over all reference texts."""

    lowest_cosine: float
    mean_cosine: float

    def broken(self, precision: str) -> str | None:
        """Return which bound is broken for a file of that precision, or None."""
        lowest, mean = LOWEST_COSINE[precision], MEAN_COSINE[precision]
        if not self.lowest_cosine >= lowest:
            return f"lowest cosine {self.lowest_cosine:.4f}, at least {lowest} is required"
        if not self.mean_cosine >= mean:
            return f"mean cosine {self.mean_cosine:.5f}, at least {mean} is required"
        return None


@dataclass(frozen=True)
class ReferenceEmbeddings:
    """Texts, and their embeddings by PyTorch and as the ONNX file defines them.

    The two differ by quantisation: `expected` is the file computed operator by operator in 32-bit
    floats. Both are of shape (texts, dimension), of unit length.
    """

    texts: list[str]
    pytorch: np.ndarray
    expected: np.ndarray

    def compare(self, embeddings: np.ndarray) -> Agreement:
        """Return how near `embeddings`, (texts, dimension), are to the expected ones."""
        cosines = (embeddings * self.expected).sum(axis=1)
        return Agreement(float(cosines.min()), float(cosines.mean()))

    def write(self, folder: Path) -> None:
        content = {
            "texts": self.texts,
            "pytorch": _rounded(self.pytorch),
            "expected": _rounded(self.expected),
        }
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ReferenceEmbeddings | None":
        """Read what `write` wrote; None if the model is older than reference outputs.

        Raises ValueError for a file that is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        with _named_if_damaged(path):
            content = json.loads(path.read_text(encoding="utf-8"))
            texts = content["texts"]
            pytorch, expected = (
                np.array(content[name], np.float32) for name in ("pytorch", "expected")
            )
            if not texts or pytorch.shape != expected.shape or len(expected) != len(texts):
                raise ValueError("texts and embeddings do not match")
        return cls(texts, pytorch, expected)


@dataclass(frozen=True)
class ReferenceScores:
    """The scores of the encoder's reference texts, in their order, (texts,), from 0 to 1."""

    scores: np.ndarray

    def broken(self, scores: np.ndarray) -> str | None:
        """Return which bound `scores`, (texts,), break, or None."""
        if len(scores) != len(self.scores):
            return f"{len(self.scores)} reference scores for {len(scores)} reference texts"
        differences = np.abs(scores - self.scores)
        largest, mean = float(differences.max()), float(differences.mean())
        if not largest <= LARGEST_DIFFERENCE:
            return f"a score differs by {largest:.3f}, at most {LARGEST_DIFFERENCE} is allowed"
        if not mean <= MEAN_DIFFERENCE:
            return f"scores differ by {mean:.4f} on average, at most {MEAN_DIFFERENCE} is allowed"
        return None

    def write(self, folder: Path) -> None:
        content = {"scores": self.scores.tolist()}
        (folder / FILE).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ReferenceScores | None":
        """Read what `write` wrote; None if the model is older than reference outputs.

        Raises ValueError for a file that is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        with _named_if_damaged(path):
            scores = np.array(json.loads(path.read_text(encoding="utf-8"))["scores"], np.float64)
            if scores.ndim != 1:
                raise ValueError("scores are no list of numbers")
        return cls(scores)


@contextmanager
def _named_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _rounded(embeddings: np.ndarray) -> Sequence[Sequence[float]]:
    return np.round(embeddings.astype(np.float64), DIGITS).tolist()
