"""Why a text scores as it does: what its features and its own words contribute."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from feedsieve.encoder import Encoder
from feedsieve.features import EMBEDDING, LEXICON
from feedsieve.scorer import Scorer
from feedsieve.text import normalise

TOKENS = 1200  # that the encoder may read for one explanation, about: it is most of the time
FEWEST_SPANS, MOST_SPANS = 4, 24  # fewer would say nothing of a long text, more nothing new


@dataclass(frozen=True)
class FeatureContribution:
    """What a named feature adds to the log-odds of the score."""

    name: str  # a key of `Features.blocks`
    value: float | None  # None for the embedding, and where the text says nothing of a trait
    contribution: float


@dataclass(frozen=True)
class WordsContribution:
    """What words that follow one another add: log-odds of the score less those without them."""

    text: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Contributions to one score, in log-odds: above 0 speaks for positive.

    `base` and the contributions of all features add up to `logit`, except where that is beyond
    -36 or 36, at which every score ends. Those of words do not add up: words act together.
    """

    base: float  # of any text, before anything is known of it
    logit: float  # of the score
    features: list[FeatureContribution]  # strongest first, without those that contribute nothing
    words: list[WordsContribution]  # the normalised text from its first word to its last


def explain(scorer: Scorer, text: str) -> Explanation:
    """Return what contributes to the score of `text`.

    Features have what `Classifier.contributions` says. Words have what leaving them out changes
    (occlusion: Zeiler and Fergus, https://arxiv.org/abs/1311.2901).
    """
    text = normalise(text)
    base, features, whole, score = _features(scorer, text)
    words = text.split()
    spans = list(pairwise(_bounds(words, scorer.encoder)))
    rests = [" ".join(words[:start] + words[end:]) for start, end in spans]
    changes = (_logits(whole) - _logits(score(rests))).tolist()
    return Explanation(
        base=base,
        logit=float(_logits(whole)[0]),
        features=features,
        words=[
            WordsContribution(" ".join(words[start:end]), change)
            for (start, end), change in zip(spans, changes, strict=True)
        ],
    )


def _features(
    scorer: Scorer, text: str
) -> tuple[float, list[FeatureContribution], np.ndarray, Callable[[Sequence[str]], np.ndarray]]:
    """Return base and contributions of features, the score, (1,), and what scores others likewise.

    A text that words alone judged is explained by its words alone, and so is what is left of it.
    """
    classifier, cascade = scorer.classifier, scorer.cascade
    lexical = classifier.features.lexical([text])
    if cascade and cascade.is_sure(lexical)[0]:
        calibration = cascade.calibration
        added = calibration.slope * float(lexical[0])
        words = FeatureContribution(LEXICON, float(lexical[0]), added)

        def by_words(texts: Sequence[str]) -> np.ndarray:
            return calibration.apply(classifier.features.lexical(texts))

        return calibration.intercept, [words], calibration.apply(lexical), by_words

    def by_all(texts: Sequence[str]) -> np.ndarray:
        return classifier.score(texts, scorer.encoder.encode(texts))

    embedding = scorer.encoder.encode([text])
    columns = classifier.features.columns([text], embedding, lexical)
    contributions, base = classifier.contributions(columns)
    named = _named(classifier.features.blocks, columns[0].tolist(), contributions[0].tolist())
    return base, named, classifier.score([text], embedding, lexical), by_all


def _named(
    blocks: dict[str, int], values: Sequence[float], contributions: Sequence[float]
) -> list[FeatureContribution]:
    """Return the blocks that contribute, strongest first; columns of one block are summed."""
    named = []
    start = 0
    for name, width in blocks.items():
        contribution = sum(contributions[start : start + width])
        if contribution:
            value = None if name == EMBEDDING or np.isnan(values[start]) else values[start]
            named.append(FeatureContribution(name, value, contribution))
        start += width
    return sorted(named, key=lambda feature: -abs(feature.contribution))


def _bounds(words: Sequence[str], encoder: Encoder) -> list[int]:
    """Return where spans of `words` start and end: each starts where the one before ends.

    The text and its variants, each without one span, have about `TOKENS` tokens together.
    What the encoder does not read of a long text still counts, in the other features. It is one
    span, so that the others stay short enough to tell something.
    """
    if not words:
        return []
    most = encoder.description.max_tokens
    count = min(max(TOKENS // max(1, _length(words, encoder)), FEWEST_SPANS), MOST_SPANS)
    read = bisect_left(range(len(words)), most, key=lambda end: _length(words[:end], encoder))
    unread = [len(words)] if read < len(words) else []
    count = min(count - len(unread), read)
    return [read * span // count for span in range(count + 1)] + unread


def _length(words: Sequence[str], encoder: Encoder) -> int:
    """Return how many tokens the encoder reads of `words`, at most its `max_tokens`."""
    return len(encoder.tokenize([" ".join(words)])[0])


def _logits(scores: np.ndarray) -> np.ndarray:
    return np.log(scores) - np.log1p(-scores)
