"""Calibration: from logits to probabilities."""

from dataclasses import dataclass

import numpy as np

from feedsieve.scoring.json_file import STRICT

_LIMIT = 36  # of a calibrated logit: from 37 on, its sigmoid rounds to 1 in 64-bit floats


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit + intercept), slope above 0."""

    __pydantic_config__ = STRICT

    slope: float
    intercept: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities in (0, 1) of the same shape as `logits`."""
        calibrated = np.clip(self.slope * logits + self.intercept, -_LIMIT, _LIMIT)
        return 1 / (1 + np.exp(-calibrated))
