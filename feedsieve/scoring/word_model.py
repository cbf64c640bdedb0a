"""The word model: linear, over the character n-grams of a text and of its first words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feedsieve.scoring.lexicon import Lexicon

OPENING = 6  # words; docs/decisions/label-noise.md compares it with three


@dataclass(frozen=True)
class WordModel:
    """Two linear models whose logits are added: of the whole text and of its first words.

    The topic of a message tends to stand at its beginning, where a word says more than the same
    word further on.
    """

    text: Lexicon
    opening: Lexicon | None = None  # none in models of earlier versions

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return a logit for each text, (texts,), 64-bit floats; above 0 speaks for positive.

        `texts` are plain (`feedsieve.text.plain`). The logit of a text does not depend on the
        batch, to the last bit.
        """
        logits = self.text.score(texts)
        if self.opening:
            logits += self.opening.score([opening(text) for text in texts])
        return logits


def opening(text: str) -> str:
    """Return the first `OPENING` words of `text`, separated by single spaces."""
    return " ".join(text.split(maxsplit=OPENING)[:OPENING])
