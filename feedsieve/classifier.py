"""Text and embedding to score: LightGBM, and the calibration that makes it a probability."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feedsieve.calibration import Calibration
from feedsieve.cascade import Cascade
from feedsieve.features import Features

if TYPE_CHECKING:
    import lightgbm

BOOSTER_FILE = "booster.txt"
DESCRIPTION_FILE = "classifier.json"
THREADS = 1  # a text takes 0.04 ms; more would wait for each other on a busy machine
_LAST_SECTION = "\nend of parameters\n"  # of LightGBM's text format, after all trees


@dataclass(frozen=True)
class Start:
    """The linear model that boosting starts from, of the columns that are log-odds themselves.

    Trees give all that is beyond their last split the same value. A line goes on, and so keeps
    the order of the messages that score highest.
    """

    weights: list[float]  # of the first columns; none if boosting starts from nothing
    centres: list[float]  # the mean of each of these columns
    logit: float  # where all of them are at their mean

    def logits(self, columns: np.ndarray) -> np.ndarray:
        """Return the logit of each row of `columns`, (rows,)."""
        return self.logit + self.contributions(columns).sum(axis=1)

    def boosted(self, booster: "lightgbm.Booster", columns: np.ndarray) -> np.ndarray:
        """Return the logit of each row of `columns`, (rows,), with what trees add to it."""
        trees = booster.predict(columns, raw_score=True, num_threads=THREADS)
        return self.logits(columns) + np.asarray(trees)

    def contributions(self, columns: np.ndarray) -> np.ndarray:
        """Return what each of the first columns adds to a logit, (rows, weights)."""
        return (columns[:, : len(self.weights)] - self.centres) * self.weights


@dataclass(frozen=True)
class ClassifierDescription:
    """What `classifier.json` says."""

    encoder_tag: str  # the one encoder whose embeddings this classifier was fitted on
    threshold: float  # scores from here up are positive
    start: Start
    calibration: Calibration
    features: dict[str, int]  # name of each block of columns, in order, and its width
    metrics: dict[str, Any]
    data_fingerprint: str
    cascade: Cascade | None = None  # if words alone are to answer where they are sure

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ClassifierDescription":
        fields = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        parts = {
            "start": Start(**fields["start"]),
            "calibration": Calibration(**fields["calibration"]),
            "cascade": Cascade.read(fields.get("cascade")),
        }
        return cls(**fields | parts)


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
        """Load what `save` wrote; raises OSError if a file is absent, ValueError if one is bad."""
        # Here, since it takes seconds where scikit-learn is installed, and `bentoml serve` has a
        # process that imports the service without ever scoring.
        import lightgbm

        path = folder / BOOSTER_FILE
        text = path.read_text(encoding="utf-8")
        if not text.startswith("tree\n") or _LAST_SECTION not in text:
            # LightGBM ends the process, not the call, on a text that was cut short.
            raise ValueError(f"{path} is damaged: no LightGBM model, or a part of one")
        booster = lightgbm.Booster(model_str=text)
        features, description = Features.load(folder), ClassifierDescription.read(folder)
        if list(features.blocks.items()) != list(description.features.items()):
            raise ValueError(f"{path} was fitted on other features than this version computes")
        return cls(booster, features, description)

    def save(self, folder: Path) -> None:
        (folder / BOOSTER_FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        self.features.save(folder)
        self.description.write(folder)

    def score(
        self, texts: Sequence[str], embeddings: np.ndarray, lexical: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a calibrated probability of positive a text, (texts,), in (0, 1).

        `embeddings` are those of `texts`, (texts, dimension), and `lexical` is what the lexicon
        says of them, (texts,), if that is known.
        """
        return self.score_columns(self.features.columns(texts, embeddings, lexical))

    def score_columns(self, columns: np.ndarray) -> np.ndarray:
        """Return what `score` returns, of what `Features.columns` returns."""
        if not len(columns):
            return np.empty(0)
        logits = self.description.start.boosted(self.booster, columns)
        return self.description.calibration.apply(logits)

    def contributions(self, columns: np.ndarray) -> tuple[np.ndarray, float]:
        """Return what each of `columns` adds to the log-odds of its row's score, and to what.

        The trees' part are SHAP values (Lundberg et al., https://arxiv.org/abs/1802.03888). The
        contributions have the shape of `columns`; a row of them and the number beside them add up
        to the logit of the row's score, but for scores at the limit of calibration.
        """
        start, calibration = self.description.start, self.description.calibration
        trees = self.booster.predict(columns, pred_contrib=True, num_threads=THREADS)
        added, expected = np.asarray(trees)[:, :-1], float(np.asarray(trees)[0, -1])
        added[:, : len(start.weights)] += start.contributions(columns)
        base = calibration.slope * (expected + start.logit) + calibration.intercept
        return calibration.slope * added, base
