"""What can be known of many texts without labels: embeddings, each computed once, and traits."""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from feedsieve.encoder import Encoder
from feedsieve.text import fingerprint, plain
from feedsieve.traits import traits
from train.compute import HERE, Compute

TRAITS_AT_ONCE = 1000  # texts; some tenths of a second


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


def traits_of(texts: Sequence[str], compute: Compute = HERE) -> np.ndarray:
    """Return the traits of `texts`, at least one, (texts, traits). Raises NoEngine."""
    starts = range(0, len(texts), TRAITS_AT_ONCE)
    parts = [list(texts[start : start + TRAITS_AT_ONCE]) for start in starts]
    return np.concatenate(compute.map(_traits, parts))


def _traits(texts: Sequence[str]) -> np.ndarray:
    return traits([plain(text) for text in texts])
