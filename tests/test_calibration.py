import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_scores import LABELLED, f1
from sklearn.metrics import f1_score

from train.classifier.calibration import best_threshold, expected_threshold, fit_platt

LOGITS = st.lists(st.tuples(st.integers(0, 1), st.floats(-50, 50)), min_size=2, max_size=40).filter(
    lambda pairs: len({label for label, _ in pairs}) == 2
)


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values)))


class TestBestThreshold:
    def test_threshold_is_the_middle_of_the_gap(self):
        assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)

    def test_widest_gap_wins_among_equal_f1(self):
        labels, scores = [0, 1, 0, 0, 1], [0.05, 0.1, 0.3, 0.4, 0.9]
        assert f1(labels, scores, 0.65) == f1(labels, scores, 0.08) == pytest.approx(2 / 3)
        assert best_threshold(labels, scores) == pytest.approx(0.65)

    def test_order_of_messages_does_not_matter(self):
        rng = np.random.default_rng(0)
        labels, scores = rng.integers(0, 2, 200), rng.random(200).round(2)
        order = rng.permutation(200)
        assert best_threshold(labels, scores) == best_threshold(labels[order], scores[order])

    @pytest.mark.parametrize("score", [0.0, 1.0, 0.5])
    def test_equal_scores_have_a_threshold(self, score):
        assert 0 < best_threshold([1, 0], [score, score]) < 1

    @given(LABELLED.filter(lambda labelled: labelled[0].any()))
    @settings(max_examples=200, deadline=None)
    def test_no_other_threshold_is_better(self, labelled):
        labels, scores = labelled
        threshold = best_threshold(labels, scores)
        assert 0 < threshold < 1
        others = [score for score in scores if 0 < score < 1] + [0.5, 5e-324, np.nextafter(1, 0)]
        assert f1(labels, scores, threshold) == max(f1(labels, scores, other) for other in others)

    def test_labels_without_positives_are_rejected(self):
        with pytest.raises(ValueError, match="no label is positive"):
            best_threshold([0, 0], [0.1, 0.2])


class TestExpectedThreshold:
    def test_threshold_matches_a_manual_calculation(self):
        """The best F1 is that of the first two: 2 (0.9 + 0.6) / (2 + 1.8) = 0.789."""
        assert expected_threshold([0.1, 0.9, 0.2, 0.6]) == pytest.approx(0.789 / 2, abs=1e-3)

    def test_no_other_threshold_is_better_for_calibrated_scores(self):
        random = np.random.default_rng(0)
        scores = random.beta(0.3, 1, 200_000)
        labels = random.random(len(scores)) < scores
        threshold = expected_threshold(scores)
        f1 = {t: f1_score(labels, scores >= t) for t in np.linspace(0.05, 0.95, 91)}
        assert f1_score(labels, scores >= threshold) == pytest.approx(max(f1.values()), abs=2e-3)
        assert threshold == pytest.approx(max(f1.values()) / 2, abs=5e-3)

    @given(st.lists(st.floats(1e-6, 1), min_size=1))
    def test_highest_score_reaches_the_threshold(self, scores):
        assert 0 < expected_threshold(scores) <= 0.5
        assert max(scores) >= expected_threshold(scores)

    @pytest.mark.parametrize("scores", [[], [0.0, 0.0]])
    def test_scores_without_positives_are_rejected(self, scores):
        with pytest.raises(ValueError, match="no threshold is best"):
            expected_threshold(scores)


class TestFitPlatt:
    def test_fit_recovers_the_true_parameters(self):
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

    def test_reversed_logits_keep_a_positive_slope(self):
        slope, intercept = fit_platt([-2.0, -1.0, 1.0, 2.0] * 5, [1, 1, 0, 0] * 5)
        assert 0 < slope < 1e-3
        assert sigmoid(intercept) == pytest.approx(0.5, abs=1e-3)

    def test_equal_logits_give_the_share_of_positives(self):
        slope, intercept = fit_platt([3.0] * 100, [1] * 25 + [0] * 75)
        assert sigmoid(slope * 3 + intercept) == pytest.approx(0.25, abs=0.02)

    @given(LOGITS)
    @settings(max_examples=100, deadline=None)
    def test_slope_is_positive_and_probabilities_average_to_the_targets(self, pairs):
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
    def test_bad_input_is_rejected(self, logits, labels):
        with pytest.raises(ValueError, match="labels|logits"):
            fit_platt(logits, labels)
