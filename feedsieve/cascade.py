"""Messages that the encoder need not read: their words alone say that they are noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from feedsieve.calibration import Calibration


@dataclass(frozen=True)
class Cascade:
    """The lexicon answers where it is sure that a message is negative, the encoder elsewhere.

    Most of a chat is noise, and most of that is plainly so: a cheap stage that answers most
    questions before a dear one is asked is what Viola and Jones (CVPR 2001) find faces with.
    """

    bound: float  # of what the lexicon says: below it a message is negative
    calibration: Calibration  # of what the lexicon says

    @classmethod
    def read(cls, fields: dict[str, Any] | None) -> "Cascade | None":
        """Return what `dataclasses.asdict` was given."""
        return cls(fields["bound"], Calibration(**fields["calibration"])) if fields else None

    def is_sure(self, lexical: np.ndarray) -> np.ndarray:
        """Return where what the lexicon says, (texts,), is an answer by itself, (texts,)."""
        return lexical < self.bound
