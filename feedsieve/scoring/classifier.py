"""Text and embedding to score: LightGBM and its calibration."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.cascade import Cascade
from feedsieve.scoring.features import Features
from feedsieve.scoring.json_file import STRICT, DamagedFile, JsonFile

if TYPE_CHECKING:
    import lightgbm

BOOSTER_FILE = "booster.txt"
DESCRIPTION_FILE = "classifier.json"
THREADS = 1  # a text takes 0.04 ms; several threads would wait for each other on a busy machine
_LAST_SECTION = "\nend of parameters\n"  # of LightGBM's text format, after all trees


@dataclass(frozen=True)
class Start:
    """The linear model that boosting starts from, on the columns that are log-odds already.

    Trees are constant beyond their last split. A line is not, so it keeps the order of the highest
    scores.
    """

    __pydantic_config__ = STRICT

    weights: list[float]  # of the first columns; none if boosting starts from a constant
    centres: list[float]  # the mean of each of these columns
    logit: float  # where all of them are at their mean

    def logits(self, columns: np.ndarray) -> np.ndarray:
        """Return the linear model's logit for each row of `columns`, (rows,)."""
        added: np.ndarray = self.contributions(columns).sum(axis=1)
        return self.logit + added

    def boosted(self, booster: "lightgbm.Booster", columns: np.ndarray) -> np.ndarray:
        """Return the logit of the linear model and the trees for each row of `columns`, (rows,)."""
        trees = booster.predict(columns, raw_score=True, num_threads=THREADS)
        logits: np.ndarray = self.logits(columns) + np.asarray(trees)
        return logits

    def contributions(self, columns: np.ndarray) -> np.ndarray:
        """Return the contribution of each of the first columns to the logit, (rows, weights)."""
        return (columns[:, : len(self.weights)] - self.centres) * self.weights


@dataclass(frozen=True)
class ClassifierDescription(JsonFile):
    """The content of `classifier.json`."""

    file_name = DESCRIPTION_FILE
    indent = 2

    encoder_tag: str  # the one encoder on whose embeddings this classifier was fitted
    threshold: float  # scores from here up are positive
    start: Start
    calibration: Calibration
    features: dict[str, int]  # name and width of each block of columns, in order
    metrics: dict[str, Any]
    data_fingerprint: str
    cascade: Cascade | None = None  # None: the encoder reads every text


class Classifier:
    """Turns texts and their embeddings into scores; safe to use from several threads."""

    def __init__(
        self, booster: "lightgbm.Booster", features: Features, description: ClassifierDescription
    ) -> None:
        self.booster = booster
        self.features = features
        self.description = description

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """Load a saved classifier. Raises OSError if a file is absent, DamagedFile if invalid."""
        # Imported here: it takes seconds where scikit-learn is installed, and `bentoml serve` has a
        # process that imports the service without scoring.
        import lightgbm

        path = folder / BOOSTER_FILE
        text = path.read_text(encoding="utf-8")
        if not text.startswith("tree\n") or _LAST_SECTION not in text:
            # LightGBM would end the process on a truncated file.
            raise DamagedFile(f"{path} is damaged: not a complete LightGBM model")
        booster = lightgbm.Booster(model_str=text)
        features, description = Features.load(folder), ClassifierDescription.read(folder)
        if list(features.blocks.items()) != list(description.features.items()):
            raise DamagedFile(f"{path} was fitted on other features than this version computes")
        return cls(booster, features, description)

    def save(self, folder: Path) -> None:
        (folder / BOOSTER_FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        self.features.save(folder)
        self.description.write(folder)

    def score(
        self, texts: Sequence[str], embeddings: np.ndarray, lexical: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the calibrated probability of positive for each text, (texts,), in (0, 1).

        `embeddings` are (texts, dimension); `lexical`, (texts,), are the word model's logits if
        they are already computed.
        """
        return self.score_columns(self.features.columns(texts, embeddings, lexical))

    def score_columns(self, columns: np.ndarray) -> np.ndarray:
        """Return the scores of the rows of `Features.columns`, (rows,), in (0, 1)."""
        if not len(columns):
            return np.empty(0)
        logits = self.description.start.boosted(self.booster, columns)
        return self.description.calibration.apply(logits)

    def contributions(self, columns: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the contribution of each column to each row's log-odds, and the base.

        The trees' part are SHAP values (Lundberg et al., https://arxiv.org/abs/1802.03888). The
        contributions have the shape of `columns`. A row's contributions and the base add up to the
        logit of its score, except where calibration limits it.
        """
        start, calibration = self.description.start, self.description.calibration
        trees = np.asarray(self.booster.predict(columns, pred_contrib=True, num_threads=THREADS))
        contributions, expected = trees[:, :-1], float(trees[0, -1])
        contributions[:, : len(start.weights)] += start.contributions(columns)
        base = calibration.slope * (expected + start.logit) + calibration.intercept
        return calibration.slope * contributions, base


def import_lightgbm_alone() -> None:
    """Import LightGBM without scikit-learn and pandas, which it imports if they are installed.

    A server needs neither, and they would add 130 MB and a second to its start. They can still be
    imported later.
    """
    absent = [name for name in ("pandas", "sklearn", "pyarrow", "dask") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment] # makes its import raise ImportError
    try:
        importlib.import_module("lightgbm")
    finally:
        for name in absent:
            del sys.modules[name]
