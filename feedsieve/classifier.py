"""Embedding to score: LightGBM, and the calibration that makes its output a probability."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

BOOSTER_FILE = "booster.txt"
DESCRIPTION_FILE = "classifier.json"
THREADS = 1  # a text takes 0.04 ms; more would wait for each other on a busy machine
_LAST_SECTION = "\nend of parameters\n"  # of LightGBM's text format, after all trees
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

    def __init__(self, booster: lightgbm.Booster, description: ClassifierDescription) -> None:
        self.booster = booster
        self.description = description

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """Load what `save` wrote; raises OSError if a file is absent, ValueError if one is bad."""
        path = folder / BOOSTER_FILE
        text = path.read_text(encoding="utf-8")
        if not text.startswith("tree\n") or _LAST_SECTION not in text:
            # LightGBM ends the process, not the call, on a text that was cut short.
            raise ValueError(f"{path} is damaged: no LightGBM model, or a part of one")
        booster = lightgbm.Booster(model_str=text)
        return cls(booster, ClassifierDescription.read(folder))

    def save(self, folder: Path) -> None:
        (folder / BOOSTER_FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        self.description.write(folder)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return one calibrated probability of positive, in (0, 1), a row of `features`."""
        if not len(features):
            return np.empty(0)
        logits = self.booster.predict(features, raw_score=True, num_threads=THREADS)
        return self.description.calibration.apply(np.asarray(logits))
