"""Embedding to score: LightGBM, and the calibration that makes its output a probability."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

BOOSTER_FILE = "booster.txt"
DESCRIPTION_FILE = "classifier.json"


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit + intercept), slope above 0."""

    slope: float
    intercept: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities in (0, 1) of the same shape as `logits`."""
        exponents = np.clip(-(self.slope * logits + self.intercept), -60, 60)
        return 1 / (1 + np.exp(exponents))


@dataclass(frozen=True)
class ClassifierDescription:
    """What `classifier.json` says."""

    encoder_tag: str  # the one encoder whose embeddings this classifier was fitted on
    threshold: float  # scores from here up are positive
    calibration: Calibration
    features: dict[str, int]  # name of each block of columns, and its width
    metrics: dict[str, Any]
    data_fingerprint: str

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ClassifierDescription":
        fields = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        return cls(**fields | {"calibration": Calibration(**fields["calibration"])})


class Classifier:
    """Turns features into scores; safe to use from several threads."""

    def __init__(
        self, booster: lightgbm.Booster, description: ClassifierDescription, threads: int = 0
    ) -> None:
        self.booster = booster
        self.description = description
        self._threads = threads

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> "Classifier":
        """Load what `save` wrote; raises OSError or LightGBM's error if a file is absent or bad."""
        text = (folder / BOOSTER_FILE).read_text(encoding="utf-8")
        booster = lightgbm.Booster(model_str=text)
        return cls(booster, ClassifierDescription.read(folder), threads)

    def save(self, folder: Path) -> None:
        (folder / BOOSTER_FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        self.description.write(folder)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return one calibrated probability of positive, in (0, 1), a row of `features`."""
        if not len(features):
            return np.empty(0)
        logits = self.booster.predict(features, raw_score=True, num_threads=self._threads)
        return self.description.calibration.apply(np.asarray(logits))
