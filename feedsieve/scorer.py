"""Text to score: the one class that the service, evaluation, files and benchmarks all call."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from feedsieve.classifier import Classifier
from feedsieve.encoder import Encoder

Label = Literal["positive", "negative"]


class Scorer:
    """An encoder and the classifier that was fitted on its embeddings."""

    def __init__(self, encoder: Encoder, classifier: Classifier, model: str) -> None:
        """`model` is the classifier's tag, by which scores are kept."""
        self.encoder = encoder
        self.classifier = classifier
        self.model = model

    @property
    def threshold(self) -> float:
        """The score from which a message is positive, in (0, 1)."""
        return self.classifier.description.threshold

    def score(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Return the probability of positive for each text, shape (texts,), in (0, 1)."""
        return self.classifier.score(texts, self.encoder.encode(texts, progress))

    def label(self, score: float) -> Label:
        """Return the decision that `score` means."""
        return "positive" if score >= self.threshold else "negative"
