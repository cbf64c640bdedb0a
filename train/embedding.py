"""Embeddings of many texts: each computed once, by the encoder that serves, with a progress bar."""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from feedsieve.encoder import Encoder
from feedsieve.text import fingerprint


class Embedder:
    """An encoder that remembers: texts with one fingerprint are embedded once in its life."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._known: dict[str, np.ndarray] = {}

    def remember(self, embeddings: Mapping[str, np.ndarray]) -> None:
        """Take as known what this encoder made of texts before, by fingerprint, (dimension,)."""
        self._known |= embeddings

    def embed(self, texts: Sequence[str], name: str) -> np.ndarray:
        """Return the embeddings of `texts`, at least one, of shape (texts, dimension).

        `name` stands before the progress bar.
        """
        marks = [fingerprint(text) for text in texts]
        new = {
            mark: text for mark, text in zip(marks, texts, strict=True) if mark not in self._known
        }
        with tqdm(total=len(new), desc=name, unit="message") as progress:
            rows = self.encoder.encode(list(new.values()), progress.update)
        self._known |= zip(new, rows, strict=True)
        return np.stack([self._known[mark] for mark in marks])
