"""Cascade: skip the encoder when the word model alone is confident of a negative."""

from dataclasses import dataclass

import numpy as np

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.json_file import STRICT


@dataclass(frozen=True)
class Cascade:
    """The word model scores messages below its bound, the encoder and classifier the others.

    Most messages are plainly noise, so a cheap first stage saves most of the work, as in face
    detection (Viola and Jones, CVPR 2001).
    """

    __pydantic_config__ = STRICT

    bound: float  # on the word model's logit; messages below it are negative
    calibration: Calibration  # of the word model's logit

    def is_sure(self, lexical: np.ndarray) -> np.ndarray:
        """Return where the word model's logits, (texts,), decide, (texts,)."""
        return lexical < self.bound
