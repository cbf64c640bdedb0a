"""The comparison of out-of-fold scores, on labels and scores made up by a known rule."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from train.evaluation.non_inferiority import (
    MARGIN,
    POWER,
    Difference,
    Outcome,
    compare,
    worst,
)

RANDOM = np.random.default_rng(7)
LABELS = (RANDOM.random(400) < 0.3).astype(int)
GROUPS = np.arange(400) // 2
GOOD = np.clip(LABELS * 0.5 + RANDOM.random(400) * 0.6, 0, 1).round(2)  # with equal scores
POOR = np.clip(LABELS * 0.2 + RANDOM.random(400) * 0.8, 0, 1).round(2)
FIGURES = ("average precision", "F1")


class TestCompare:
    def test_means_are_those_of_scikit_learn(self):
        found = compare(LABELS, GROUPS, GOOD, POOR, (0.5, 0.4), 7)
        precision = [average_precision_score(LABELS, scores) for scores in (GOOD, POOR)]
        f1 = [f1_score(LABELS, GOOD >= 0.5), f1_score(LABELS, POOR >= 0.4)]
        for name, (ours, theirs) in zip(FIGURES, (precision, f1), strict=True):
            assert found[name].mean == pytest.approx(100 * (ours - theirs))

    def test_better_scores_pass_and_worse_ones_are_rejected(self):
        for ours, theirs, outcome in (
            (GOOD, POOR, Outcome.PASSED),
            (POOR, GOOD, Outcome.REJECTED),
            (GOOD, GOOD, Outcome.PASSED),
        ):
            for one in compare(LABELS, GROUPS, ours, theirs, (0.5, 0.5), 7).values():
                assert one.low <= one.mean <= one.high
                assert one.outcome(MARGIN) is outcome

    def test_copies_in_a_group_do_not_reduce_the_error(self):
        """Each message occurs ten times, in one group."""
        one = compare(LABELS, np.arange(400), GOOD, POOR, (0.5, 0.5), 7)["F1"]
        ten = [np.repeat(values, 10) for values in (LABELS, np.arange(400), GOOD, POOR)]
        copied = compare(*ten, (0.5, 0.5), 7)["F1"]
        assert copied.error == pytest.approx(one.error, rel=0.1)


class TestOutcome:
    def test_few_labels_leave_it_undecided_and_say_how_many_would_do(self):
        few = Difference(mean=-0.5, low=-3.0, high=2.5, error=1.5, labels=400)
        assert few.outcome(2.0) is Outcome.UNDECIDED
        # (1.645 + 2.326) * 1.5 / 2 = 2.98, squared 8.87 times as many
        assert few.labels_needed(2.0) == 3600

    def test_certain_loss_below_the_margin_passes(self):
        small = Difference(mean=-0.5, low=-0.8, high=-0.1, error=0.2, labels=9000)
        assert small.outcome(2.0) is Outcome.PASSED
        assert small.outcome(0.5) is Outcome.REJECTED

    def test_rejection_is_worse_than_indecision(self):
        assert worst([Outcome.PASSED, Outcome.UNDECIDED]) is Outcome.UNDECIDED
        assert worst([Outcome.UNDECIDED, Outcome.REJECTED]) is Outcome.REJECTED
        assert worst([]) is Outcome.PASSED


class TestPower:
    """Models of known quality, as docs/decisions/promotion.md does with trained ones."""

    LABELS = 2000

    def scores(self, random: np.random.Generator, separation: float, count: int) -> tuple:
        """Return labels, and scores of a model with this separation and of a champion."""
        labels = (random.random(count) < 0.22).astype(int)
        shared = random.normal(size=count)
        ours = labels * separation + shared + random.normal(0, 0.05, count)
        theirs = labels * 3.0 + shared + random.normal(0, 0.05, count)
        return labels, ours, theirs

    def promote(self, separation: float) -> list[Outcome]:
        random = np.random.default_rng(7)
        thresholds = separation / 2 + 0.3, 1.8
        outcomes = []
        for seed in range(20):
            labels, ours, theirs = self.scores(random, separation, self.LABELS)
            found = compare(labels, np.arange(len(labels)), ours, theirs, thresholds, seed, 300)
            needed = [one.labels_needed(MARGIN) for one in found.values()]
            assert separation < 3 or max(needed) <= self.LABELS
            outcomes.append(worst([one.outcome(MARGIN) for one in found.values()]))
        return outcomes

    def test_equal_models_pass(self):
        assert self.promote(3.0).count(Outcome.PASSED) >= 20 * POWER - 1

    def test_models_three_points_worse_are_all_refused(self):
        assert Outcome.PASSED not in self.promote(2.7)
