import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.evaluation.metrics import evaluate
from train.evaluation.slices import LENGTHS, by_slice, length, precision_at, precisions_at

RUSSIAN, ENGLISH = "Добрый день всем соседям", "Good morning to all neighbours"


class TestLength:
    @pytest.mark.parametrize(
        ("characters", "name"),
        [
            (0, "up to 100 characters"),
            (100, "up to 100 characters"),
            (101, "101 to 300 characters"),
            (300, "101 to 300 characters"),
            (301, "301 to 600 characters"),
            (600, "301 to 600 characters"),
            (601, "over 600 characters"),
        ],
    )
    def test_ranges_include_their_upper_edge(self, characters, name):
        assert length("a" * characters) == name

    def test_spaces_and_emoji_are_not_counted(self):
        assert length("a" * 100 + "   \n\n🔥🔥  ") == "up to 100 characters"

    @given(st.text())
    @settings(max_examples=50, deadline=None)
    def test_any_text_has_a_length(self, text):
        assert length(text) in LENGTHS


class TestBySlice:
    def test_rows_match_a_manual_calculation(self):
        # 20 in Russian: 3 found, 1 missed, 1 false alarm. 5 in English: too few.
        labels = [1, 1, 1, 1, 0] + [0] * 15 + [1, 0, 0, 0, 0]
        scores = [0.9, 0.9, 0.9, 0.1, 0.8] + [0.1] * 15 + [0.9, 0.1, 0.1, 0.1, 0.1]
        texts = [RUSSIAN] * 20 + [ENGLISH] * 5
        russian, english, short = by_slice(texts, labels, scores, 0.5)
        assert (russian["slice"], russian["name"]) == ("language", "Russian")
        assert (russian["n"], russian["positives"]) == (20, 4)
        assert russian["precision"] == russian["recall"] == russian["f1"] == 0.75
        # The one that was missed shares its score with 15 negatives: 4 positives of 20 there.
        assert russian["average_precision"] == pytest.approx(3 / 4 * 1 + 1 / 4 * 4 / 20)
        # Scored 0.1: 16, of them 1 positive; 0.8: none of 1; 0.9: all 3.
        assert russian["ece"] == pytest.approx((16 * abs(0.1 - 1 / 16) + 1 * 0.8 + 3 * 0.1) / 20)
        assert english == {
            "slice": "language",
            "name": "English",
            "n": 5,
            "positives": 1,
            **dict.fromkeys(["f1", "precision", "recall", "average_precision", "ece"]),
        }
        assert (short["slice"], short["name"]) == ("length", "up to 100 characters")
        assert (short["n"], short["positives"]) == (25, 5)
        all_messages = evaluate(labels, scores, 0.5)
        assert short == {"slice": "length", "name": short["name"]} | {
            name: all_messages[name] for name in short if name not in ("slice", "name")
        }

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_label_has_a_calibration_error_only(self, label):
        row = by_slice([RUSSIAN] * 30, [label] * 30, [0.3] * 30, 0.5)[0]
        assert row["ece"] == pytest.approx(abs(label - 0.3))
        assert row["f1"] is row["precision"] is row["recall"] is row["average_precision"] is None
        assert (row["n"], row["positives"]) == (30, 30 * label)

    def test_every_message_is_in_one_slice_of_each_kind(self):
        texts = [RUSSIAN, ENGLISH, "Καλημέρα", "a" * 400, "я" * 700, "123", "ab яю"] * 5
        rows = by_slice(texts, [0, 1, 0, 1, 1, 0, 0] * 5, np.linspace(0, 1, 35), 0.5)
        for kind in ("language", "length"):
            of_kind = [row for row in rows if row["slice"] == kind]
            assert sum(row["n"] for row in of_kind) == 35
            assert sum(row["positives"] for row in of_kind) == 15
        assert [row["name"] for row in rows] == [
            "Russian", "English", "Greek", "other", "mixed",
            "up to 100 characters", "301 to 600 characters", "over 600 characters",
        ]  # fmt: skip

    def test_bad_input_is_rejected(self):
        with pytest.raises(ValueError, match="1 texts and 2 labels"):
            by_slice([RUSSIAN], [0, 1], [0.1, 0.2], 0.5)
        with pytest.raises(ValueError, match="between 0 and 1"):
            by_slice([RUSSIAN], [0], [1.2], 0.5)


class TestPrecisionAt:
    def test_precision_matches_a_manual_calculation(self):
        labels, scores = [0, 1, 1, 0, 1], [0.1, 0.9, 0.8, 0.7, 0.2]
        shares = [precision_at(labels, scores, k) for k in range(1, 6)]
        assert shares == pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5])

    def test_tied_scores_share_the_last_places(self):
        # One place is left for three messages of which one is positive.
        assert precision_at([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.5], 2) == pytest.approx((1 + 1 / 3) / 2)
        assert precision_at([1, 1, 0, 0], [0.5] * 4, 2) == 0.5

    def test_order_of_messages_does_not_matter(self):
        rng = np.random.default_rng(0)
        labels, scores = rng.integers(0, 2, 60), rng.random(60).round(1)
        order = np.argsort(labels)
        for k in (1, 7, 20, 60):
            assert precision_at(labels, scores, k) == pytest.approx(
                precision_at(labels[order], scores[order], k)
            )

    @pytest.mark.parametrize("k", [-1, 0, 4])
    def test_k_out_of_range_is_rejected(self, k):
        with pytest.raises(ValueError, match="k must be between 1 and"):
            precision_at([0, 1, 0], [0.1, 0.2, 0.3], k)

    def test_unequal_lengths_are_rejected(self):
        with pytest.raises(ValueError, match="of 2 and 3"):
            precision_at([0, 1], [0.1, 0.2, 0.3], 1)

    def test_places_beyond_the_messages_are_left_out(self):
        labels, scores = [1] * 10 + [0] * 20, np.linspace(1, 0, 30)
        assert precisions_at(labels, scores) == {"precision_at_20": 0.5}
        assert precisions_at(labels, scores, (5, 30)) == {
            "precision_at_5": 1.0,
            "precision_at_30": pytest.approx(1 / 3),
        }
