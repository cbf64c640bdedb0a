"""Text to score: the one class that the service, evaluation, files and benchmarks all call."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from feedsieve.classifier import Classifier
from feedsieve.encoder import Encoder
from feedsieve.engines import Begun

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
        embed = partial(self._embed, all_begun=all_begun, eager=eager)
        if not self.cascade:
            scores = self._read(texts, None, embed, progress)
            return Judged(scores, np.zeros(len(texts), bool))
        lexical = self.classifier.features.lexical(texts)
        by_words = self.cascade.is_sure(lexical)
        scores = self.cascade.calibration.apply(lexical)
        if progress and by_words.any():
            progress(int(by_words.sum()))
        rest = np.flatnonzero(~by_words)
        left = [texts[row] for row in rest.tolist()]
        scores[rest] = self._read(left, lexical[rest], embed, progress)
        return Judged(scores, by_words)

    def _read(
        self,
        texts: Sequence[str],
        lexical: np.ndarray | None,
        embed: Callable[[Sequence[str]], Iterable[tuple[list[int], Begun]]],
        progress: Callable[[int], object] | None,
    ) -> np.ndarray:
        """Return the scores of `texts` by what the encoder reads in them.

        What some texts say without the encoder is found while the encoder reads them.
        """
        features = self.classifier.features
        columns = np.empty((len(texts), sum(features.blocks.values())))
        for rows, embeddings in embed(texts):
            some = [texts[row] for row in rows]
            words = None if lexical is None else lexical[rows]
            columns[rows] = features.columns(some, embeddings, words)
            if progress:
                progress(len(rows))
        return self.classifier.score_columns(columns)

    def _embed(
        self, texts: Sequence[str], all_begun: Callable[[], object] | None, eager: bool
    ) -> Iterator[tuple[list[int], Begun]]:
        """Yield what `Encoder.embed` yields, if it is `eager` for `TEXTS_AT_ONCE` and more texts.

        All of these are begun by then, beside those that the encoder begins ahead.
        """
        rows: list[int] = []
        begun: list[Begun] = []
        for some, embeddings in self.encoder.embed(texts, all_begun, eager):
            rows += some
            begun.append(embeddings)
            if len(rows) >= TEXTS_AT_ONCE or not eager:
                yield rows, partial(_all, begun)
                rows, begun = [], []
        if rows:
            yield rows, partial(_all, begun)

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


def _all(begun: Sequence[Begun]) -> np.ndarray:
    """Wait for the embeddings of some batches, (texts, dimension)."""
    return np.concatenate([embeddings() for embeddings in begun])
