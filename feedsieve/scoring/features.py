"""Features: the classifier's named columns for each message."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedsieve.scoring.handcrafted import HANDCRAFTED, handcrafted_features
from feedsieve.scoring.json_file import DamagedFile
from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.word_model import WordModel
from feedsieve.text import plain

FEATURES_FILE = "features.json"
LEXICON, HEAD, EMBEDDING = "its words", "the text as a whole", "embedding"


@dataclass(frozen=True)
class Head:
    """A linear model on top of the encoder: from an embedding to a logit of positive."""

    weights: np.ndarray  # (dimension,)
    bias: float

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Return a logit of positive for each embedding, (texts,), 64-bit floats."""
        # Not a matrix product: BLAS changes the order of a row's sum with the number of rows.
        logits: np.ndarray = (embeddings.astype(np.float64) * self.weights).sum(axis=1)
        return logits + self.bias


class Features:
    """Turns texts and their embeddings into the classifier's columns.

    The columns are the logits of the word model and of the encoder's head, and the handcrafted
    features. Classifiers made by earlier versions may have no head and use the embedding itself.
    """

    def __init__(self, words: WordModel, head: Head | None, embedding_width: int) -> None:
        """`embedding_width` is the number of columns for the embedding: its dimension, or 0."""
        self.words = words
        self.head = head
        self.embedding_width = embedding_width

    @property
    def log_odds(self) -> int:
        """The number of first columns that are log-odds of positive themselves."""
        return 2 if self.head else 1

    @property
    def blocks(self) -> dict[str, int]:
        """The name and width of each block of columns, in order."""
        head = {HEAD: 1} if self.head else {}
        handcrafted = dict.fromkeys(HANDCRAFTED, 1)
        return {LEXICON: 1} | head | handcrafted | {EMBEDDING: self.embedding_width}

    def lexical(self, texts: Sequence[str]) -> np.ndarray:
        """Return the word model's logit for each text, (texts,)."""
        return self.words.score([plain(text) for text in texts])

    def handcrafted(self, texts: Sequence[str]) -> np.ndarray:
        """Return the handcrafted features of each text, (texts, features)."""
        return handcrafted_features([plain(text) for text in texts])

    def columns(
        self,
        texts: Sequence[str],
        embeddings: np.ndarray,
        lexical: np.ndarray | None = None,
        handcrafted: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return all features of `texts`, (texts, columns), 64-bit floats, NaN for absent amounts.

        `embeddings` are (texts, dimension). `lexical` and `handcrafted` are the results of these
        methods if they are already computed.
        """
        lexical = self.lexical(texts) if lexical is None else lexical
        handcrafted = self.handcrafted(texts) if handcrafted is None else handcrafted
        logits = self.head.logits(embeddings) if self.head else None
        return self.assemble(handcrafted, embeddings, lexical, logits)

    def assemble(
        self,
        handcrafted: np.ndarray,
        embeddings: np.ndarray,
        lexical: np.ndarray,
        head_logits: np.ndarray | None,
    ) -> np.ndarray:
        """Return columns with the given logits, such as out-of-fold ones for training.

        The models' own logits of texts that they were fitted on would be too good to learn from.
        `handcrafted` are (texts, features), `lexical` and `head_logits` are (texts,). Raises
        ValueError for embeddings of another encoder.
        """
        width = self.embedding_width
        if width not in (0, embeddings.shape[1]):
            raise ValueError(f"embeddings of {width} columns, not {embeddings.shape[1]}")
        rows = assemble(handcrafted, lexical, head_logits)
        return np.column_stack([rows, embeddings[:, :width]])

    def save(self, folder: Path) -> None:
        """Write `features.json` into `folder`."""
        words, head = self.words, self.head
        content = {
            "embedding": self.embedding_width,
            "head": head and {"weights": head.weights.tolist(), "bias": head.bias},
            "lexicon": _as_json(words.text),
            "opening": words.opening and _as_json(words.opening),
        }
        (folder / FEATURES_FILE).write_text(
            json.dumps(content, ensure_ascii=False), encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Load `features.json`. Raises OSError if it is absent, DamagedFile if it is invalid."""
        path = folder / FEATURES_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            head, opening = content["head"], content.get("opening")
            return cls(
                WordModel(Lexicon(**content["lexicon"]), opening and Lexicon(**opening)),
                head and Head(np.array(head["weights"]), head["bias"]),
                content["embedding"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"{path} is damaged: {error}") from error


def assemble(
    handcrafted: np.ndarray, lexical: np.ndarray, head_logits: np.ndarray | None
) -> np.ndarray:
    """Return the columns before the embedding, (texts, columns); see `Features.assemble`."""
    logits = [lexical] if head_logits is None else [lexical, head_logits]
    return np.column_stack([*logits, handcrafted])


def _as_json(lexicon: Lexicon) -> dict[str, Any]:
    return {
        "intercept": lexicon.intercept,
        "pieces": lexicon.pieces,
        "idf": _rounded(lexicon.idf),
        "weights": _rounded(lexicon.weights),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.9g}") for value in values]  # exact for 32-bit floats
