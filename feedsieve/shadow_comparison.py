"""Comparison of a shadow with the served model: agreement, shift and rank correlation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feedsieve.store.shadows import ShadowPair

_Z = 1.96  # of a 95 % confidence interval
_DECILES = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Decile:
    """A tenth of the texts, by the served model's score."""

    lowest: float  # score by the served model, 0 to 1
    highest: float
    texts: int
    mean: float  # score by the served model
    shadow_mean: float
    agreement: float  # share of texts with the same decision, 0 to 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores and decisions of a shadow against those of the served model."""

    texts: int
    agreement: Estimate  # share of texts with the same decision, 0 to 1
    positive: float  # share that is positive by the served model, 0 to 1
    shadow_positive: float
    only_served: int  # texts that are positive by the served model alone
    only_shadow: int
    more_positive: Estimate  # share positive by the shadow minus that by the served model
    shift: Estimate  # mean of the shadow's score minus the served model's
    mean_difference: float  # of absolute differences of scores
    p90_difference: float  # their 90th percentile
    rank_correlation: Estimate | None  # Spearman's, -1 to 1; None if all scores of a model are one
    deciles: list[Decile]  # the lowest scores first


def compare(pairs: Sequence[ShadowPair]) -> Comparison:
    """Compare a shadow with the served model. Raises ValueError if there are no pairs."""
    if not pairs:
        raise ValueError("there are no texts to compare")
    scores = np.array([pair.score for pair in pairs])
    shadow = np.array([pair.shadow_score for pair in pairs])
    decided = np.array([pair.is_positive for pair in pairs])
    shadow_decided = np.array([pair.shadow_is_positive for pair in pairs])
    same = decided == shadow_decided
    only_served = int((decided & ~shadow_decided).sum())
    only_shadow = int((shadow_decided & ~decided).sum())
    differences = np.abs(shadow - scores)
    return Comparison(
        texts=len(pairs),
        agreement=_share(int(same.sum()), len(pairs)),
        positive=float(decided.mean()),
        shadow_positive=float(shadow_decided.mean()),
        only_served=only_served,
        only_shadow=only_shadow,
        more_positive=_paired_difference(only_shadow, only_served, len(pairs)),
        shift=_mean(shadow - scores),
        mean_difference=float(differences.mean()),
        p90_difference=float(np.percentile(differences, 90)),
        rank_correlation=_rank_correlation(scores, shadow),
        deciles=[
            Decile(
                float(scores[rows].min()),
                float(scores[rows].max()),
                len(rows),
                float(scores[rows].mean()),
                float(shadow[rows].mean()),
                float(same[rows].mean()),
            )
            for rows in np.array_split(np.argsort(scores, kind="stable"), _DECILES)
            if len(rows)
        ],
    )


def _share(count: int, of: int) -> Estimate:
    """Return a share with its Wilson interval (Wilson 1927)."""
    share = count / of
    scale = 1 + _Z**2 / of
    centre = (share + _Z**2 / (2 * of)) / scale
    width = _Z * math.sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2)) / scale
    return Estimate(share, max(0.0, centre - width), min(1.0, centre + width))


def _paired_difference(more: int, fewer: int, of: int) -> Estimate:
    """Return the difference of two shares of the same texts, which differ in `more` and `fewer`.

    Its interval is the adjusted Wald interval for paired shares (Bonett and Price 2012).
    """
    plus, minus = (more + 1) / (of + 2), (fewer + 1) / (of + 2)
    width = _Z * math.sqrt((plus + minus - (plus - minus) ** 2) / (of + 2))
    centre = plus - minus
    return Estimate((more - fewer) / of, max(-1.0, centre - width), min(1.0, centre + width))


def _mean(values: np.ndarray) -> Estimate:
    """Return a mean with its normal interval; of one value it is not known, -1 to 1."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, -1.0, 1.0)
    width = _Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - width, mean + width)


def _rank_correlation(scores: np.ndarray, shadow: np.ndarray) -> Estimate | None:
    """Return Spearman's rank correlation; equal scores have the mean of their ranks.

    The interval is by Fisher's transformation, with the variance of Bonett and Wright (2000).
    """
    ranks, shadow_ranks = _ranks(scores), _ranks(shadow)
    if not ranks.std() or not shadow_ranks.std():
        return None
    value = float(np.clip(np.corrcoef(ranks, shadow_ranks)[0, 1], -1, 1))
    if len(scores) < 4:
        return Estimate(value, -1.0, 1.0)
    centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    width = _Z * math.sqrt((1 + value**2 / 2) / (len(scores) - 3))
    low, high = float(np.tanh(centre - width)), float(np.tanh(centre + width))
    return Estimate(value, min(value, low), max(value, high))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
