import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_scores import LABELLED, f1

from train.evaluation.metrics import evaluate, reliability


class TestEvaluate:
    def test_metrics_match_a_manual_calculation(self):
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

    def test_metrics_are_python_numbers(self):
        metrics = evaluate(np.array([1, 0]), np.array([0.9, 0.2], dtype=np.float32), 0.5)
        counts = {metrics.pop("n"), metrics.pop("positives")}
        assert {type(count) for count in counts} == {int}
        assert {type(value) for value in metrics.values()} == {float}

    @pytest.mark.parametrize(
        ("labels", "scores"), [([0, 0], [0.9, 0.1]), ([1, 1], [0.1, 0.2]), ([0], [0.0])]
    )
    def test_undefined_metrics_are_zero_without_warnings(self, labels, scores):
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
    def test_bad_input_is_rejected(self, labels, scores, message):
        for function in (
            lambda: evaluate(labels, scores, 0.5),
            lambda: reliability(labels, scores),
        ):
            with pytest.raises(ValueError, match=message):
                function()


class TestCalibrationError:
    def test_last_bin_includes_1(self):
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
    def test_error_is_at_least_the_gap_of_the_means(self, labelled):
        labels, scores = labelled
        error = evaluate(labels, scores, 0.5)["ece"]
        assert abs(labels.mean() - scores.mean()) - 1e-9 <= error <= 1

    def test_true_probabilities_have_almost_no_error(self):
        rng = np.random.default_rng(0)
        scores = rng.random(100_000)
        assert evaluate(rng.random(100_000) < scores, scores, 0.5)["ece"] < 0.01
