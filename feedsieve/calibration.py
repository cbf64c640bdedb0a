"""From what a model says to a probability."""

from dataclasses import dataclass

import numpy as np

_LIMIT = 36  # of a calibrated logit: from 37 on the nearest 64-bit float to its sigmoid is 1


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit + intercept), slope above 0."""

    slope: float
    intercept: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities in (0, 1) of the same shape as `logits`."""
        calibrated = np.clip(self.slope * logits + self.intercept, -_LIMIT, _LIMIT)
        return 1 / (1 + np.exp(-calibrated))
