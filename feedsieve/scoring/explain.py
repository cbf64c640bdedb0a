"""Explain a score: the contributions of features and of words."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field

from feedsieve.scoring.cascade import Cascade
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.features import EMBEDDING, LEXICON, Features
from feedsieve.scoring.scorer import Scorer
from feedsieve.text import LONGEST, normalise

TOKENS = 1200  # budget for the encoder, about; it is most of the time
FEWEST_SPANS, MOST_SPANS = 4, 24  # fewer would say nothing of a long text, more nothing new


@dataclass(frozen=True)
class FeatureContribution:
    """The contribution of a named feature to the log-odds of the score."""

    name: str  # a key of `Features.blocks`
    value: Annotated[
        float | None, Field(description="null for the embedding, and if not in the text")
    ]
    contribution: Annotated[float, Field(description="log-odds; above 0 speaks for positive")]


@dataclass(frozen=True)
class WordsContribution:
    """The contribution of consecutive words to the score."""

    text: str
    contribution: Annotated[float, Field(description="log-odds, less those without these words")]


@dataclass(frozen=True)
class Explanation:
    """Contributions to a score in log-odds, above 0 for positive.

    `base` and the contributions of all features add up to `logit`, except beyond -36 and 36, where
    scores are limited. Those of words do not add up, since words act together.
    """

    base: Annotated[float, Field(description="log-odds of an unknown text")]
    logit: Annotated[float, Field(description="log-odds of the score")]
    features: Annotated[
        list[FeatureContribution], Field(description="strongest first, without zeros")
    ]
    words: Annotated[
        list[WordsContribution], Field(description="the whole text in order, single spaces")
    ]


def explain(scorer: Scorer, text: str) -> Explanation:
    """Return the contributions to the score of `text`.

    Its first `LONGEST` characters count. Contributions of features are from
    `Classifier.contributions`. The contribution of words is how much the logit falls without them
    (occlusion: Zeiler and Fergus, https://arxiv.org/abs/1311.2901).
    """
    text = normalise(text)[:LONGEST]
    words = text.split()
    spans = list(pairwise(_bounds(words, scorer.encoder)))
    variants = [text, *(" ".join(words[:start] + words[end:]) for start, end in spans)]
    cascade, features = scorer.cascade, scorer.classifier.features
    if cascade and cascade.is_sure(features.lexical([text]))[0]:
        base, contributions, scores = _by_words(features, cascade, variants)
    else:
        base, contributions, scores = _by_classifier(scorer, variants)
    logit, *without = (np.log(scores) - np.log1p(-scores)).tolist()
    return Explanation(
        base=base,
        logit=logit,
        features=contributions,
        words=[
            WordsContribution(" ".join(words[start:end]), logit - rest)
            for (start, end), rest in zip(spans, without, strict=True)
        ],
    )


def _by_words(
    features: Features, cascade: Cascade, texts: Sequence[str]
) -> tuple[float, list[FeatureContribution], np.ndarray]:
    """Return base and contributions of the first text, and the word model's scores of all."""
    lexical, calibration = features.lexical(texts), cascade.calibration
    first = float(lexical[0])
    contribution = FeatureContribution(LEXICON, first, calibration.slope * first)
    return calibration.intercept, [contribution], calibration.apply(lexical)


def _by_classifier(
    scorer: Scorer, texts: Sequence[str]
) -> tuple[float, list[FeatureContribution], np.ndarray]:
    """Return base and contributions of the first text, and the classifier's scores of all."""
    classifier = scorer.classifier
    columns = classifier.features.columns(texts, scorer.encoder.encode(texts))
    [contributions], base = classifier.contributions(columns[:1])
    named = _named(classifier.features.blocks, columns[0].tolist(), contributions.tolist())
    return base, named, classifier.score_columns(columns)


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
    """Return the bounds of spans of `words`: each span starts where the one before ends.

    The text and its variants, each without one span, have about `TOKENS` tokens together. The
    words that the encoder cuts off still count in the other features. They are one span, so that
    the others stay short enough to be useful.
    """
    if not words:
        return []
    count = min(max(TOKENS // max(1, _length(words, encoder)), FEWEST_SPANS), MOST_SPANS)
    limit = encoder.description.max_tokens
    read = bisect_left(range(len(words)), limit, key=lambda end: _length(words[:end], encoder))
    unread = [len(words)] if read < len(words) else []
    count = min(count - len(unread), read)
    return [read * span // count for span in range(count + 1)] + unread


def _length(words: Sequence[str], encoder: Encoder) -> int:
    """Return the number of tokens that the encoder reads of `words`, at most `max_tokens`."""
    return len(encoder.tokenize([" ".join(words)])[0])
