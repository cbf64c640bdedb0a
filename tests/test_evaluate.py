import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from train.evaluate import (
    best_threshold,
    evaluate,
    expected_threshold,
    fit_platt,
    reliability,
)

SCORES = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 5e-324, np.nextafter(1, 0)])
)
LABELLED = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=40).map(
    lambda pairs: tuple(np.array(column) for column in zip(*pairs, strict=True))
)
LOGITS = st.lists(st.tuples(st.integers(0, 1), st.floats(-50, 50)), min_size=2, max_size=40).filter(
    lambda pairs: len({label for label, _ in pairs}) == 2
)


def f1(labels, scores, threshold) -> float:
    shown = np.asarray(scores) >= threshold
    hits = int((shown & (np.asarray(labels) == 1)).sum())
    return 2 * hits / (int(shown.sum()) + int(np.sum(labels)))


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values)))


class TestEvaluate:
    def test_by_hand(self):
        metrics = evaluate([1, 1, 1, 0, 0], [0.9, 0.8, 0.3, 0.6, 0.1], 0.6)
        assert metrics == pytest.approx(
            {
                "f1": 2 / 3,
                "precision": 2 / 3,
                "recall": 2 / 3,
                "average_precision": (1 + 1 + 3 / 4) / 3,
                "brier": (0.01 + 0.04 + 0.49 + 0.36 + 0.01) / 5,
                "ece": (0.1 + 0.2 + 0.7 + 0.6 + 0.1) / 5,
                "n": 5,
                "positives": 3,
            }
        )

    def test_plain_numbers(self):
        metrics = evaluate(np.array([1, 0]), np.array([0.9, 0.2], dtype=np.float32), 0.5)
        counts = {metrics.pop("n"), metrics.pop("positives")}
        assert {type(count) for count in counts} == {int}
        assert {type(value) for value in metrics.values()} == {float}

    @pytest.mark.parametrize(
        ("labels", "scores"), [([0, 0], [0.9, 0.1]), ([1, 1], [0.1, 0.2]), ([0], [0.0])]
    )
    def test_what_is_undefined_is_zero_without_warnings(self, labels, scores):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metrics = evaluate(labels, scores, 0.5)
        assert metrics["f1"] == metrics["precision"] == metrics["recall"] == 0.0

    @given(LABELLED, st.floats(0.01, 0.99))
    @settings(max_examples=60, deadline=None)
    def test_metrics_lie_between_0_and_1(self, labelled, threshold):
        labels, scores = labelled
        metrics = evaluate(labels, scores, threshold)
        assert (metrics.pop("n"), metrics.pop("positives")) == (len(labels), labels.sum())
        assert all(0 <= value <= 1 for value in metrics.values())
        assert metrics["f1"] == pytest.approx(f1(labels, scores, threshold) if labels.any() else 0)

    @pytest.mark.parametrize(
        ("labels", "scores", "message"),
        [
            ([], [], "of one length"),
            ([1], [0.1, 0.2], "of one length"),
            ([2], [0.1], "labels must be"),
            ([1], [1.1], "scores must be"),
            ([1], [float("nan")], "scores must be"),
        ],
    )
    def test_bad_input(self, labels, scores, message):
        for function in (
            lambda: evaluate(labels, scores, 0.5),
            lambda: reliability(labels, scores),
        ):
            with pytest.raises(ValueError, match=message):
                function()


class TestCalibrationError:
    def test_bins_are_of_equal_width_and_the_last_one_holds_1(self):
        bins = reliability([1, 0, 1, 0], [0.0, 0.1, 0.95, 1.0])
        assert bins.count.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
        assert bins.score[-1] == pytest.approx(0.975)
        assert bins.positive[-1] == 0.5
        assert np.isnan(bins.score[4])

    def test_gaps_are_weighted_by_count(self):
        assert evaluate([1, 1, 1, 0], [0.95, 0.95, 0.95, 0.45], 0.5)["ece"] == pytest.approx(
            (3 * 0.05 + 0.45) / 4
        )

    @given(LABELLED)
    @settings(max_examples=60, deadline=None)
    def test_no_less_than_the_gap_of_the_means(self, labelled):
        labels, scores = labelled
        error = evaluate(labels, scores, 0.5)["ece"]
        assert abs(labels.mean() - scores.mean()) - 1e-9 <= error <= 1

    def test_true_probabilities_have_next_to_none(self):
        rng = np.random.default_rng(0)
        scores = rng.random(100_000)
        assert evaluate(rng.random(100_000) < scores, scores, 0.5)["ece"] < 0.01


class TestBestThreshold:
    def test_the_middle_of_the_gap(self):
        assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)

    def test_the_widest_gap_among_equals(self):
        labels, scores = [0, 1, 0, 0, 1], [0.05, 0.1, 0.3, 0.4, 0.9]
        assert f1(labels, scores, 0.65) == f1(labels, scores, 0.08) == pytest.approx(2 / 3)
        assert best_threshold(labels, scores) == pytest.approx(0.65)

    def test_the_order_of_messages_does_not_matter(self):
        rng = np.random.default_rng(0)
        labels, scores = rng.integers(0, 2, 200), rng.random(200).round(2)
        order = rng.permutation(200)
        assert best_threshold(labels, scores) == best_threshold(labels[order], scores[order])

    @pytest.mark.parametrize("score", [0.0, 1.0, 0.5])
    def test_scores_all_alike(self, score):
        assert 0 < best_threshold([1, 0], [score, score]) < 1

    @given(LABELLED.filter(lambda labelled: labelled[0].any()))
    @settings(max_examples=200, deadline=None)
    def test_no_other_threshold_is_better(self, labelled):
        labels, scores = labelled
        threshold = best_threshold(labels, scores)
        assert 0 < threshold < 1
        others = [score for score in scores if 0 < score < 1] + [0.5, 5e-324, np.nextafter(1, 0)]
        assert f1(labels, scores, threshold) == max(f1(labels, scores, other) for other in others)

    def test_without_positives_none_is_best(self):
        with pytest.raises(ValueError, match="no label is positive"):
            best_threshold([0, 0], [0.1, 0.2])


class TestExpectedThreshold:
    def test_by_hand(self):
        """The first two: 2 (0.9 + 0.6) / (2 + 1.8) = 0.789; the first alone or all: less."""
        assert expected_threshold([0.1, 0.9, 0.2, 0.6]) == pytest.approx(0.789 / 2, abs=1e-3)

    def test_no_other_threshold_is_better_of_calibrated_scores(self):
        random = np.random.default_rng(0)
        scores = random.beta(0.3, 1, 200_000)
        labels = random.random(len(scores)) < scores
        threshold = expected_threshold(scores)
        f1 = {t: f1_score(labels, scores >= t) for t in np.linspace(0.05, 0.95, 91)}
        assert f1_score(labels, scores >= threshold) == pytest.approx(max(f1.values()), abs=2e-3)
        assert threshold == pytest.approx(max(f1.values()) / 2, abs=5e-3)

    @given(st.lists(st.floats(1e-6, 1), min_size=1))
    def test_something_is_let_through(self, scores):
        assert 0 < expected_threshold(scores) <= 0.5
        assert max(scores) >= expected_threshold(scores)

    @pytest.mark.parametrize("scores", [[], [0.0, 0.0]])
    def test_nothing_to_choose_by(self, scores):
        with pytest.raises(ValueError, match="no threshold is best"):
            expected_threshold(scores)


class TestFitPlatt:
    def test_finds_what_made_the_labels(self):
        rng = np.random.default_rng(0)
        logits = rng.normal(1, 3, 50_000)
        labels = rng.random(50_000) < sigmoid(0.7 * logits - 1.2)
        assert fit_platt(logits, labels) == pytest.approx((0.7, -1.2), abs=0.05)

    def test_targets_are_smoothed(self):
        slope, intercept = fit_platt([-1.0] * 8 + [1.0] * 3, [0] * 8 + [1] * 3)
        assert sigmoid(slope + intercept) == pytest.approx(4 / 5, abs=1e-4)
        assert sigmoid(-slope + intercept) == pytest.approx(1 / 10, abs=1e-4)

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_perfect_separation_stays_finite(self, scale):
        logits = np.concatenate([np.linspace(-9, -5, 50), np.linspace(5, 9, 50)]) * scale
        slope, intercept = fit_platt(logits, [0] * 50 + [1] * 50)
        probabilities = sigmoid(slope * logits + intercept)
        assert np.isfinite([slope, intercept]).all()
        assert probabilities[:50].max() < 0.1
        assert 0.9 < probabilities[50:].min() < probabilities[50:].max() < 0.999

    def test_logits_that_say_the_opposite_never_turn_the_order_round(self):
        slope, intercept = fit_platt([-2.0, -1.0, 1.0, 2.0] * 5, [1, 1, 0, 0] * 5)
        assert 0 < slope < 1e-3
        assert sigmoid(intercept) == pytest.approx(0.5, abs=1e-3)

    def test_logits_all_alike_give_the_share_of_positives(self):
        slope, intercept = fit_platt([3.0] * 100, [1] * 25 + [0] * 75)
        assert sigmoid(slope * 3 + intercept) == pytest.approx(0.25, abs=0.02)

    @given(LOGITS)
    @settings(max_examples=100, deadline=None)
    def test_slope_is_above_0_and_the_mean_probability_is_that_of_the_targets(self, pairs):
        labels, logits = (np.array(column) for column in zip(*pairs, strict=True))
        slope, intercept = fit_platt(logits, labels)
        assert slope > 0
        positives, negatives = labels.sum(), (1 - labels).sum()
        expected = (
            positives * (positives + 1) / (positives + 2) + negatives / (negatives + 2)
        ) / len(labels)
        fitted = np.clip(slope * logits + intercept, -500, 500)
        assert sigmoid(fitted).mean() == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [([1.0, 2.0], [1, 1]), ([], []), ([1.0, float("inf")], [0, 1]), ([1.0], [0, 1])],
    )
    def test_bad_input(self, logits, labels):
        with pytest.raises(ValueError, match="labels|logits"):
            fit_platt(logits, labels)
