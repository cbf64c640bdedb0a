"""A non-inferiority test: one model's quality is less than a margin below another's.

Both scored the same messages out of fold. Average precision and F1 are each compared by a paired
bootstrap over groups of near-duplicates (Efron and Tibshirani, An Introduction to the Bootstrap,
1993). docs/decisions/promotion.md has the reasons for margin and power, with figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy.stats import norm

MARGIN = 2.0  # points of average precision and F1
PASSED_AT = 0.95  # one-sided confidence that the loss is below the margin
REJECTED_AT = 0.99  # one-sided confidence that there is a loss
POWER = 0.99  # probability that an equal model passes, on `labels_needed` labels
# Models of one kind on different folds differ by this much more than the bootstrap estimates.
OTHER_FOLDS = 1.5
SAMPLES = 1000  # of the bootstrap
_AT_ONCE = 50


class Outcome(Enum):
    """The outcome of a comparison."""

    PASSED = "ok"
    REJECTED = "REJECTED"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Difference:
    """One model's figure minus another's, in points, estimated on `labels` labels."""

    mean: float
    low: float  # lower bound at PASSED_AT
    high: float  # upper bound at REJECTED_AT
    error: float  # standard error
    labels: int

    def on_other_folds(self) -> "Difference":
        """Return it with the error of models that were fitted on different folds."""
        return replace(
            self,
            low=self.mean - OTHER_FOLDS * (self.mean - self.low),
            high=self.mean + OTHER_FOLDS * (self.high - self.mean),
            error=OTHER_FOLDS * self.error,
        )

    def outcome(self, margin: float) -> Outcome:
        """Return whether the loss is below `margin` points; undecided if labels are too few."""
        if self.low > -margin:
            return Outcome.PASSED
        return Outcome.REJECTED if self.high < 0 else Outcome.UNDECIDED

    def labels_needed(self, margin: float) -> int:
        """Return on how many labels an equal model passes with a probability of `POWER`.

        The error shrinks with the root of the number of labels. Two digits are significant.
        """
        quantiles = float(norm.ppf(PASSED_AT) + norm.ppf(POWER))
        exact = self.labels * (self.error * quantiles / margin) ** 2
        unit = 10 ** max(0, int(np.log10(max(exact, 1))) - 1)
        return int(np.ceil(exact / unit)) * unit

    def __str__(self) -> str:
        return f"{self.mean:+.2f} points, at least {self.low:+.2f} ({PASSED_AT:.0%} confidence)"


def compare(
    labels: np.ndarray,
    groups: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    thresholds: tuple[float, float],
    seed: int,
    samples: int = SAMPLES,
) -> dict[str, Difference]:
    """Return by how much `ours` are better than `theirs` in average precision and F1.

    `labels`, 0 or 1, `groups` of near-duplicates, and the scores `ours` and `theirs` are
    (messages,). A score of its threshold or more counts as positive. `samples` of the bootstrap are
    a multiple of 50.
    """
    _, members = np.unique(groups, return_inverse=True)
    models = [
        _Model(labels, scores, threshold, members)
        for scores, threshold in zip((ours, theirs), thresholds, strict=True)
    ]

    def differences(weights: np.ndarray) -> np.ndarray:
        figures = [model.figures(weights) for model in models]
        return 100 * (figures[0] - figures[1])

    random = np.random.default_rng(seed)
    count = members.max() + 1
    differing = []
    for _part in range(samples // _AT_ONCE):
        drawn = random.integers(count, size=(_AT_ONCE, count))
        cells = drawn + count * np.arange(_AT_ONCE)[:, None]
        weights = np.bincount(cells.ravel(), minlength=_AT_ONCE * count).reshape(_AT_ONCE, count)
        differing.append(differences(weights.astype(np.int32)))
    drawn_differences = np.concatenate(differing)
    lows, highs = np.percentile(
        drawn_differences, (100 * (1 - PASSED_AT), 100 * REJECTED_AT), axis=0
    )
    return {
        name: Difference(float(mean), float(low), float(high), float(error), len(labels))
        for name, mean, low, high, error in zip(
            ("average precision", "F1"),
            differences(np.ones((1, count), np.int32))[0],
            lows,
            highs,
            drawn_differences.std(axis=0),
            strict=True,
        )
    }


class _Model:
    """A model's decisions, and the messages by falling score, sorted once for all samples."""

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, threshold: float, members: np.ndarray
    ) -> None:
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        self._members = members[order]
        self._positives = np.flatnonzero(labels[order] == 1)
        # Equal scores rank alike: the number of messages, and of positives, down to each positive.
        self._ends = np.searchsorted(falling, falling[self._positives], side="right")
        self._found = np.searchsorted(self._positives, self._ends)
        self._decided = int((scores >= threshold).sum())  # the first so many
        self._hits = int(np.searchsorted(self._positives, self._decided))

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """Return average precision and F1, 0 to 1, as scikit-learn defines them: (samples, 2).

        `weights`, (samples, groups), are how often a sample has a group. Without positives both
        are 0.
        """
        messages = weights[:, self._members]
        positives = messages[:, self._positives]
        taken, found = _sums(messages), _sums(positives)
        precision = found[:, self._found] / np.maximum(taken[:, self._ends], 1)
        total = found[:, -1]
        average = (precision * positives).sum(axis=1) / np.maximum(total, 1)
        f1 = 2 * found[:, self._hits] / np.maximum(total + taken[:, self._decided], 1)
        return np.column_stack([average, f1])


def _sums(weights: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, ... columns."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), np.int32)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return REJECTED if there is one, else UNDECIDED if there is one, else PASSED."""
    for outcome in (Outcome.REJECTED, Outcome.UNDECIDED):
        if outcome in outcomes:
            return outcome
    return Outcome.PASSED
