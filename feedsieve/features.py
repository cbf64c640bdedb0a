"""What LightGBM sees of a message: columns, each with a name that an explanation can show."""

import json
from collections.abc import Callable, Sequence
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
    """What fine-tuning left on top of the encoder: a logit, linear in the embedding."""

    weights: np.ndarray  # (dimension,)
    bias: float

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Return a logit of positive for each embedding, (texts,), 64-bit floats."""
        return embeddings.astype(np.float64) @ self.weights + self.bias


class Features:
    """Turns texts and their embeddings into the classifier's columns.

    The columns: what the lexicon says, what the encoder's head says if it was fine-tuned, the
    traits, and the embedding if the classifier reads it.
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
        self,
        texts: Sequence[str],
        embeddings: np.ndarray | Callable[[], np.ndarray],
        lexical: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the features of texts whose embeddings are (texts, dimension).

        `embeddings` may be what waits for them: it is called when all else is done. `lexical` is
        what `lexical` returns, if that is known. The answer is (texts, columns), 64-bit floats, NaN
        where a text says nothing of a trait.
        """
        if lexical is None:
            lexical = self.lexical(texts)
        named = traits([plain(text) for text in texts])
        if callable(embeddings):
            embeddings = embeddings()
        verdicts = self.head.logits(embeddings) if self.head else None
        return self.assemble(named, embeddings, lexical, verdicts)

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
