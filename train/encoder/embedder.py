"""An encoder with a cache of its embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from feedsieve.scoring.encoder import Encoder
from feedsieve.text import fingerprint


class Embedder:
    """Embeds texts, each once: texts with equal fingerprints share an embedding."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._cache: dict[str, np.ndarray] = {}

    def add(self, embeddings: Mapping[str, np.ndarray]) -> None:
        """Cache embeddings that this encoder computed before, (dimension,), by fingerprint."""
        self._cache |= embeddings

    def embed(self, texts: Sequence[str], name: str) -> np.ndarray:
        """Return the embeddings of `texts`, at least one, (texts, dimension).

        `name` labels the progress bar.
        """
        fingerprints = [fingerprint(text) for text in texts]
        new = {
            key: text
            for key, text in zip(fingerprints, texts, strict=True)
            if key not in self._cache
        }
        with tqdm(total=len(new), desc=name, unit="message") as progress:
            rows = self.encoder.encode(list(new.values()), progress.update)
        self._cache |= zip(new, rows, strict=True)
        return np.stack([self._cache[key] for key in fingerprints])
