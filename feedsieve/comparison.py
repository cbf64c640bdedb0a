"""Comparison of two models' scores of the same texts: agreement, shift and rank correlation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """A tenth of the texts, by the first model's score."""

    lowest: float  # score by the first model, 0 to 1
    highest: float
    texts: int
    mean: float  # score by the first model
    other_mean: float
    agreement: float  # share of texts with the same decision, 0 to 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores and decisions of a second model against those of a first."""

    texts: int
    agreement: Estimate  # share of texts with the same decision, 0 to 1
    positive: float  # share that is positive by the first model, 0 to 1
    other_positive: float
    only_first: int  # texts that are positive by the first model alone
    only_other: int
    more_positive: Estimate  # share that is positive by the second minus that by the first
    shift: Estimate  # mean of the second score minus the first
    mean_difference: float  # of absolute differences of scores
    p90_difference: float  # their 90th percentile
    rank_correlation: Estimate | None  # Spearman's, -1 to 1; None if all scores of a model are one
    deciles: list[Decile]  # the lowest scores first


def compare(
    scores: Sequence[float],
    other_scores: Sequence[float],
    positive: Sequence[bool],
    other_positive: Sequence[bool],
) -> Comparison:
    """Compare two models' scores, 0 to 1, and decisions for the same texts, in the same order.

    Raises ValueError if there are none.
    """
    if not scores:
        raise ValueError("there are no texts to compare")
    first, other = np.asarray(scores, float), np.asarray(other_scores, float)
    decided, other_decided = np.asarray(positive, bool), np.asarray(other_positive, bool)
    same = decided == other_decided
    differences = other - first
    only_first = int((decided & ~other_decided).sum())
    only_other = int((other_decided & ~decided).sum())
    return Comparison(
        texts=len(first),
        agreement=_share(int(same.sum()), len(same)),
        positive=float(decided.mean()),
        other_positive=float(other_decided.mean()),
        only_first=only_first,
        only_other=only_other,
        more_positive=_paired_difference(only_other, only_first, len(first)),
        shift=_mean(differences),
        mean_difference=float(np.abs(differences).mean()),
        p90_difference=float(np.percentile(np.abs(differences), 90)),
        rank_correlation=_rank_correlation(first, other),
        deciles=[
            Decile(
                float(first[rows].min()),
                float(first[rows].max()),
                len(rows),
                float(first[rows].mean()),
                float(other[rows].mean()),
                float(same[rows].mean()),
            )
            for rows in np.array_split(np.argsort(first, kind="stable"), _DECILES)
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


def _rank_correlation(first: np.ndarray, other: np.ndarray) -> Estimate | None:
    """Return Spearman's rank correlation; equal scores have the mean of their ranks.

    The interval is by Fisher's transformation, with the variance of Bonett and Wright (2000).
    """
    ranks, other_ranks = _ranks(first), _ranks(other)
    if not ranks.std() or not other_ranks.std():
        return None
    value = float(np.clip(np.corrcoef(ranks, other_ranks)[0, 1], -1, 1))
    if len(first) < 4:
        return Estimate(value, -1.0, 1.0)
    centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    width = _Z * math.sqrt((1 + value**2 / 2) / (len(first) - 3))
    low, high = float(np.tanh(centre - width)), float(np.tanh(centre + width))
    return Estimate(value, min(value, low), max(value, high))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
