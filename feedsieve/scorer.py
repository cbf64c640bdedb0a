"""Text to score: the one class that the service, evaluation, files and benchmarks all call."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from feedsieve.backends import PendingEmbeddings
from feedsieve.classifier import Classifier
from feedsieve.encoder import Encoder

Label = Literal["positive", "negative"]
By = Literal["words", "encoder"]
# Words and traits are looked at for at least so many texts together. One by one, in turns with the
# encoder on the same core, they take twice the time.
TEXTS_AT_ONCE = 16


class Verdict(NamedTuple):
    """The score of a text, a probability of positive in (0, 1), and what gave it."""

    score: float
    by: By


class Judged(NamedTuple):
    """Scores of texts, and where they are from."""

    scores: np.ndarray  # probabilities of positive, (texts,), in (0, 1)
    by_words: np.ndarray  # whether words alone gave the score, and not the encoder, (texts,)

    def verdicts(self) -> list[Verdict]:
        """Return them one by one."""
        return [
            Verdict(score, "words" if by_words else "encoder")
            for score, by_words in zip(self.scores.tolist(), self.by_words.tolist(), strict=True)
        ]


class Scorer:
    """An encoder and the classifier that was fitted on its embeddings.

    A classifier may have a cascade: of texts of which words say enough, nothing is embedded.
    """

    def __init__(
        self, encoder: Encoder, classifier: Classifier, model: str, *, cascade: bool = True
    ) -> None:
        """`model` is the classifier's tag, by which scores are kept.

        Without `cascade` the encoder reads every text, whatever the classifier has.
        """
        self.encoder = encoder
        self.classifier = classifier
        self.model = model
        self.cascade = classifier.description.cascade if cascade else None

    @property
    def threshold(self) -> float:
        """The score from which a message is positive, in (0, 1)."""
        return self.classifier.description.threshold

    def score(
        self,
        texts: Sequence[str],
        progress: Callable[[int], object] | None = None,
        eager: bool = True,
    ) -> np.ndarray:
        """Return the probability of positive for each text, shape (texts,), in (0, 1).

        What is asked for beside it has more of the encoder if this is not `eager`.
        """
        return self.judge(texts, progress, eager=eager).scores

    def judge(
        self,
        texts: Sequence[str],
        progress: Callable[[int], object] | None = None,
        all_begun: Callable[[], object] | None = None,
        eager: bool = True,
    ) -> Judged:
        """Return the scores of `texts`, and which of them words alone gave.

        `progress` is called with the number of texts done since its last call; `all_begun` and
        `eager` are `Encoder.embed`'s.
        """
        if not self.cascade:
            scores = self._read(texts, None, progress, all_begun, eager)
            return Judged(scores, np.zeros(len(texts), bool))
        lexical = self.classifier.features.lexical(texts)
        by_words = self.cascade.is_sure(lexical)
        scores = self.cascade.calibration.apply(lexical)
        if progress and by_words.any():
            progress(int(by_words.sum()))
        rest = np.flatnonzero(~by_words)
        left = [texts[row] for row in rest.tolist()]
        scores[rest] = self._read(left, lexical[rest], progress, all_begun, eager)
        return Judged(scores, by_words)

    def _read(
        self,
        texts: Sequence[str],
        lexical: np.ndarray | None,
        progress: Callable[[int], object] | None,
        all_begun: Callable[[], object] | None,
        eager: bool,
    ) -> np.ndarray:
        """Return the scores of `texts` by what the encoder reads in them.

        The features that need no encoder are computed while the encoder runs.
        """
        features = self.classifier.features
        columns = np.empty((len(texts), sum(features.blocks.values())))
        for rows, pending in self._embed(texts, all_begun, eager):
            some = [texts[row] for row in rows]
            words = features.lexical(some) if lexical is None else lexical[rows]
            named = features.named(some)
            embeddings = np.concatenate([batch.result() for batch in pending])
            columns[rows] = features.join(named, embeddings, words)
            if progress:
                progress(len(rows))
        return self.classifier.score_columns(columns)

    def _embed(
        self, texts: Sequence[str], all_begun: Callable[[], object] | None, eager: bool
    ) -> Iterator[tuple[list[int], list[PendingEmbeddings]]]:
        """Yield rows and futures of one batch, or of several with `TEXTS_AT_ONCE` texts if `eager`.

        All of these are submitted by then, beside those that the encoder submits ahead.
        """
        rows: list[int] = []
        pending: list[PendingEmbeddings] = []
        for some, batch in self.encoder.embed(texts, all_begun, eager):
            rows += some
            pending.append(batch)
            if len(rows) >= TEXTS_AT_ONCE or not eager:
                yield rows, pending
                rows, pending = [], []
        if rows:
            yield rows, pending

    def score_embedded(self, texts: Sequence[str], embeddings: np.ndarray) -> np.ndarray:
        """Return what `score` returns, of texts whose embeddings, (texts, dimension), are known."""
        lexical = self.classifier.features.lexical(texts)
        scores = self.classifier.score(texts, embeddings, lexical)
        if not self.cascade:
            return scores
        sure = self.cascade.is_sure(lexical)
        return np.where(sure, self.cascade.calibration.apply(lexical), scores)

    def label(self, score: float) -> Label:
        """Return the decision that `score` means."""
        return "positive" if score >= self.threshold else "negative"
