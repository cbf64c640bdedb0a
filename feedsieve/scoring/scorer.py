"""Text to score, for the service, evaluation, bulk scoring, notebooks and benchmark."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from feedsieve.message import Label
from feedsieve.scoring.backends import PendingEmbeddings
from feedsieve.scoring.classifier import Classifier
from feedsieve.scoring.encoder import Encoder
from feedsieve.tracing import span

By = Literal["words", "encoder"]
# Other features are computed for at least so many texts together. One by one, in turns with the
# encoder on the same core, they take twice the time.
MIN_TEXTS = 16


class ScoredText(NamedTuple):
    """The score of a text, a probability of positive in (0, 1), and the model that gave it."""

    score: float
    by: By


class Scores(NamedTuple):
    """Scores of several texts."""

    scores: np.ndarray  # probabilities of positive, (texts,), in (0, 1)
    by_words: np.ndarray  # whether the word model alone gave the score, (texts,)

    def each(self) -> list[ScoredText]:
        """Return the scores one by one."""
        return [
            ScoredText(score, "words" if by_words else "encoder")
            for score, by_words in zip(self.scores.tolist(), self.by_words.tolist(), strict=True)
        ]


class Scorer:
    """An encoder and the classifier that was fitted on its embeddings.

    If the classifier has a cascade, texts that its word model is sure of are not embedded.
    """

    def __init__(
        self, encoder: Encoder, classifier: Classifier, model: str, *, cascade: bool = True
    ) -> None:
        """`model` is the classifier's tag; scores are stored with it.

        Without `cascade` the encoder reads every text.
        """
        self.encoder = encoder
        self.classifier = classifier
        self.model = model
        self.cascade = classifier.description.cascade if cascade else None

    @classmethod
    def load(
        cls, tag: str = "feedsieve-classifier:latest", threads: int = 0, *, cascade: bool = True
    ) -> "Scorer":
        """Load the classifier `tag` and its encoder from the BentoML model store.

        `threads` 0 means one a core. Without `cascade` the encoder reads every text. Raises
        ModelNotFound.
        """
        from feedsieve.scoring.model_store import load_scorer  # which imports this module

        return load_scorer(tag, threads, cascade=cascade)

    @property
    def threshold(self) -> float:
        """The score from which a message is positive, in (0, 1)."""
        return self.classifier.description.threshold

    def label(self, score: float) -> Label:
        """Return the decision for `score`."""
        return "positive" if score >= self.threshold else "negative"

    def score(
        self,
        texts: Sequence[str],
        progress: Callable[[int], object] | None = None,
        eager: bool = True,
    ) -> np.ndarray:
        """Return the probability of positive for each text, shape (texts,), in (0, 1).

        `progress` and `eager` are those of `score_texts`.
        """
        return self.score_texts(texts, progress, eager=eager).scores

    def score_texts(
        self,
        texts: Sequence[str],
        progress: Callable[[int], object] | None = None,
        all_submitted: Callable[[], object] | None = None,
        eager: bool = True,
    ) -> Scores:
        """Return the scores of `texts`, and which of them the word model alone gave.

        `progress` is called with the number of texts done since its last call. `all_submitted` and
        `eager` are those of `Encoder.embed`.
        """
        if not self.cascade:
            scores = self._score_embedding(texts, None, progress, all_submitted, eager)
            return Scores(scores, np.zeros(len(texts), bool))
        with span("word model"):
            lexical = self.classifier.features.lexical(texts)
            by_words = self.cascade.is_sure(lexical)
            scores = self.cascade.calibration.apply(lexical)
        if progress and by_words.any():
            progress(int(by_words.sum()))
        rest = np.flatnonzero(~by_words)
        unsure = [texts[row] for row in rest.tolist()]
        scores[rest] = self._score_embedding(unsure, lexical[rest], progress, all_submitted, eager)
        return Scores(scores, by_words)

    def score_embedded(self, texts: Sequence[str], embeddings: np.ndarray) -> np.ndarray:
        """Return the result of `score` from precomputed `embeddings`, (texts, dimension)."""
        lexical = self.classifier.features.lexical(texts)
        scores = self.classifier.score(texts, embeddings, lexical)
        if not self.cascade:
            return scores
        by_words = self.cascade.is_sure(lexical)
        return np.where(by_words, self.cascade.calibration.apply(lexical), scores)

    def _score_embedding(
        self,
        texts: Sequence[str],
        lexical: np.ndarray | None,
        progress: Callable[[int], object] | None,
        all_submitted: Callable[[], object] | None,
        eager: bool,
    ) -> np.ndarray:
        """Return the classifier's scores; the other features are computed while the encoder runs.

        `lexical`, (texts,), are the word model's logits if they are already computed.
        """
        features = self.classifier.features
        columns = np.empty((len(texts), sum(features.blocks.values())))
        with span("encoder"):
            for rows, pending in self._submit(texts, all_submitted, eager):
                part = [texts[row] for row in rows]
                words = features.lexical(part) if lexical is None else lexical[rows]
                handcrafted = features.handcrafted(part)
                embeddings = np.concatenate([batch.result() for batch in pending])
                columns[rows] = features.columns(part, embeddings, words, handcrafted)
                if progress:
                    progress(len(rows))
        with span("classifier"):
            return self.classifier.score_columns(columns)

    def _submit(
        self, texts: Sequence[str], all_submitted: Callable[[], object] | None, eager: bool
    ) -> Iterator[tuple[list[int], list[PendingEmbeddings]]]:
        """Yield rows of `texts` and futures of their embeddings.

        At least `MIN_TEXTS` texts at a time if `eager`, else one batch.
        """
        rows: list[int] = []
        pending: list[PendingEmbeddings] = []
        for batch_rows, batch in self.encoder.embed(texts, all_submitted, eager):
            rows += batch_rows
            pending.append(batch)
            if len(rows) >= MIN_TEXTS or not eager:
                yield rows, pending
                rows, pending = [], []
        if rows:
            yield rows, pending
