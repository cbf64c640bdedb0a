"""What LightGBM sees of a message: columns, each with a name that an explanation can show."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedsieve.lexicon import Lexicon
from feedsieve.text import plain
from feedsieve.traits import TRAITS, traits

FILE = "features.json"
LEXICON, HEAD, EMBEDDING = "its words", "the text as a whole", "embedding"


@dataclass(frozen=True)
class Head:
    """A linear model on top of the encoder: from an embedding to a logit of positive."""

    weights: np.ndarray  # (dimension,)
    bias: float

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Return a logit of positive for each embedding, (texts,), 64-bit floats."""
        # Not a matrix product: BLAS sums a row in another order if there are more rows.
        return (embeddings.astype(np.float64) * self.weights).sum(axis=1) + self.bias


class Features:
    """Turns texts and their embeddings into the classifier's columns.

    The columns: what the lexicon says, what the encoder's head says, and the traits. Classifiers
    made by earlier versions may have no head and read the embedding itself.
    """

    def __init__(self, lexicon: Lexicon, head: Head | None, embedding_width: int) -> None:
        """`embedding_width` is how many columns the embedding takes: its dimension, or 0."""
        self.lexicon = lexicon
        self.head = head
        self.embedding_width = embedding_width

    @property
    def log_odds(self) -> int:
        """How many of the first columns are log-odds of positive themselves."""
        return 2 if self.head else 1

    @property
    def blocks(self) -> dict[str, int]:
        """The blocks of columns in their order, and how many columns each takes."""
        head = {HEAD: 1} if self.head else {}
        return {LEXICON: 1} | head | dict.fromkeys(TRAITS, 1) | {EMBEDDING: self.embedding_width}

    def lexical(self, texts: Sequence[str]) -> np.ndarray:
        """Return what the lexicon says of each text, (texts,)."""
        return self.lexicon.score([plain(text) for text in texts])

    def columns(
        self, texts: Sequence[str], embeddings: np.ndarray, lexical: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the features of texts whose embeddings are (texts, dimension).

        `lexical` is what `lexical` returns, if that is known. The answer is (texts, columns),
        64-bit floats, NaN where a text says nothing of a trait.
        """
        if lexical is None:
            lexical = self.lexical(texts)
        return self.join(self.named(texts), embeddings, lexical)

    def named(self, texts: Sequence[str]) -> np.ndarray:
        """Return the named traits of each text, (texts, traits)."""
        return traits([plain(text) for text in texts])

    def join(self, named: np.ndarray, embeddings: np.ndarray, lexical: np.ndarray) -> np.ndarray:
        """Return what `columns` returns, of the parts that `named` and `lexical` return."""
        logits = self.head.logits(embeddings) if self.head else None
        return self.assemble(named, embeddings, lexical, logits)

    def assemble(
        self,
        named: np.ndarray,
        embeddings: np.ndarray,
        lexical: np.ndarray,
        verdicts: np.ndarray | None,
    ) -> np.ndarray:
        """Return what `columns` returns, but with scores that were made elsewhere.

        Those of messages that lexicon and head were fitted on would be too good to learn from.
        `named` are the traits, (texts, traits), `lexical` and `verdicts` are (texts,). Raises
        ValueError for embeddings of another encoder.
        """
        width = self.embedding_width
        if width not in (0, embeddings.shape[1]):
            raise ValueError(f"embeddings of {width} columns, not {embeddings.shape[1]}")
        scores = [lexical] if verdicts is None else [lexical, verdicts]
        return np.column_stack([*scores, named, embeddings[:, :width]])

    def save(self, folder: Path) -> None:
        """Write `features.json` into `folder`."""
        lexicon, head = self.lexicon, self.head
        content = {
            "embedding": self.embedding_width,
            "head": head and {"weights": head.weights.tolist(), "bias": head.bias},
            "lexicon": {
                "intercept": lexicon.intercept,
                "pieces": lexicon.pieces,
                "idf": _rounded(lexicon.idf),
                "weights": _rounded(lexicon.weights),
            },
        }
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Load what `save` wrote; raises OSError or ValueError."""
        path = folder / FILE
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            head = content["head"]
            return cls(
                Lexicon(**content["lexicon"]),
                head and Head(np.array(head["weights"]), head["bias"]),
                content["embedding"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.9g}") for value in values]  # enough to tell all 32-bit floats apart
