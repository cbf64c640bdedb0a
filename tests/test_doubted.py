import numpy as np
import pytest

from train.classifier import stacking
from train.classifier.doubted import FEWEST, MOST_LEFT_OUT, kept


def scored(count: int, **wrong: float) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, half of them positive, and scores that agree, except those of `wrong` rows."""
    labels = np.arange(count) % 2
    scores = np.where(labels == 1, 0.9, 0.1)
    for row, score in wrong.items():
        scores[int(row[1:])] = score
    return labels, scores


class TestBelieved:
    def test_contradicted_labels_are_left_out(self):
        labels, scores = scored(2 * FEWEST, r3=0.05, r4=0.95, r5=0.2)
        assert np.flatnonzero(~kept(labels, scores)).tolist() == [3, 4]

    def test_checked_labels_are_believed(self):
        labels, scores = scored(2 * FEWEST, r3=0.05, r4=0.95)
        checked = np.arange(len(labels)) == 3
        assert np.flatnonzero(~kept(labels, scores, checked)).tolist() == [4]

    def test_few_labels_are_all_believed(self):
        labels, scores = scored(2 * FEWEST - 2, r3=0.05, r4=0.95)
        assert kept(labels, scores).all()

    def test_a_bad_model_leaves_out_a_few(self):
        labels, _ = scored(4 * FEWEST)
        scores = np.random.default_rng(0).uniform(0, 0.05, len(labels))
        left_out = ~kept(labels, scores)
        assert not left_out[labels == 0].any()
        assert left_out[labels == 1].mean() == pytest.approx(MOST_LEFT_OUT, abs=0.01)


class TestStacking:
    def test_wrong_labels_do_not_move_the_scores_of_their_kind(self):
        """Ten sales among two hundred are labelled positive, as lets are."""
        rng = np.random.default_rng(0)
        words = [
            "море",
            "парк",
            "школа",
            "центр",
            "мебель",
            "балкон",
            "кухня",
            "паркинг",
            "бассейн",
            "вид",
            "дом",
            "этаж",
        ]
        kinds = np.repeat(["сдаю квартиру", "продаю квартиру"], 200)
        texts = [f"{kind} {' '.join(rng.choice(words, 6))}" for kind in kinds]
        truth = (kinds == "сдаю квартиру").astype(int)
        labels = truth.copy()
        labels[200:400:20] = 1
        features, fitted = stacking.fit(texts, labels, np.arange(400), None, None, 7)
        logits = fitted.start.boosted(fitted.booster, features.columns(texts, np.empty((400, 0))))
        scores = fitted.calibration.apply(logits)
        assert scores[200:].mean() < 0.01
        checked = np.ones(400, bool)
        features, fitted = stacking.fit(
            texts, labels, np.arange(400), None, None, 7, checked=checked
        )
        logits = fitted.start.boosted(fitted.booster, features.columns(texts, np.empty((400, 0))))
        assert fitted.calibration.apply(logits)[200:].mean() > 0.03
