import json
from concurrent.futures import Future
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.classifier import (
    BOOSTER_FILE,
    DESCRIPTION_FILE,
    Classifier,
    ClassifierDescription,
    Start,
)
from feedsieve.scoring.features import FEATURES_FILE, Features
from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.scorer import Scorer
from feedsieve.scoring.word_model import WordModel
from train.classifier.boosting import ROUNDS, Fitted, fit
from train.classifier.parameters import FIXED
from train.data.folds import folds

COLUMNS = 16
# Without pieces the word model is constant: these classifiers depend on the embedding.
FEATURES = Features(WordModel(Lexicon([], np.empty(0), np.empty(0), 0.0)), None, COLUMNS)


def embeddings(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features that predict most labels, and the labels, one in four positive."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, COLUMNS)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] + rng.normal(size=count) / 2 > 1).astype(np.int64)
    return features, labels


def columns(rows: np.ndarray) -> np.ndarray:
    return FEATURES.columns(texts(rows), rows)


def texts(rows: np.ndarray) -> list[str]:
    return ["a message"] * len(rows)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    features, labels = embeddings(400)
    return fit(columns(features), labels, np.arange(400), seed=7)


@pytest.fixture(scope="module")
def classifier(fitted) -> Classifier:
    description = ClassifierDescription(
        encoder_tag="feedsieve-encoder:abc",
        threshold=fitted.threshold,
        start=fitted.start,
        calibration=fitted.calibration,
        features=FEATURES.blocks,
        metrics={"test": {"f1": 0.5}, "имя": 1},
        data_fingerprint="0" * 32,
    )
    return Classifier(fitted.booster, FEATURES, description)


@pytest.fixture
def saved(classifier, tmp_path) -> Path:
    classifier.save(tmp_path)
    return tmp_path


class TestScores:
    def test_each_row_has_a_score_between_0_and_1(self, classifier):
        features, labels = embeddings(500, seed=1)
        scores = classifier.score(texts(features), features)
        assert scores.shape == (500,)
        assert (scores > 0).all() and (scores < 1).all()
        assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.2

    def test_extreme_features_score_between_0_and_1(self, classifier):
        features = np.array([[1e30] * COLUMNS, [-1e30] * COLUMNS, [0.0] * COLUMNS], np.float32)
        scores = classifier.score(texts(features), features)
        assert (scores > 0).all() and (scores < 1).all()

    def test_no_rows(self, classifier):
        assert classifier.score([], np.empty((0, COLUMNS), np.float32)).shape == (0,)

    def test_score_does_not_depend_on_the_batch(self, classifier):
        features, _labels = embeddings(20, seed=2)
        alone = [float(classifier.score(texts(row[None]), row[None])[0]) for row in features]
        assert classifier.score(texts(features), features).tolist() == alone

    def test_embeddings_of_another_width_are_rejected(self, classifier):
        with pytest.raises(ValueError, match="16 columns, not 17"):
            classifier.score(["one", "two"], np.zeros((2, COLUMNS + 1), np.float32))


class TestCalibration:
    @given(
        st.floats(1e-3, 1e3),
        st.floats(-50, 50),
        st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    )
    def test_calibration_keeps_the_order_and_stays_between_0_and_1(self, slope, intercept, logits):
        scores = Calibration(slope, intercept).apply(np.sort(np.array(logits)))
        assert (np.diff(scores) >= 0).all()
        assert (scores > 0).all() and (scores < 1).all()

    def test_calibration_is_the_sigmoid(self):
        scores = Calibration(2.0, -1.0).apply(np.array([0.5, 0.0, 1.0]))
        assert scores == pytest.approx([0.5, 1 / (1 + np.e), 1 / (1 + 1 / np.e)])

    def test_scores_keep_the_order_of_booster_logits(self, classifier):
        features, _labels = embeddings(200, seed=3)
        logits = np.asarray(classifier.booster.predict(columns(features), raw_score=True))
        order = np.argsort(logits, kind="stable")
        assert (np.diff(classifier.score(texts(features), features)[order]) >= 0).all()


class TestStart:
    """Boosting from a linear model of columns that are log-odds already."""

    @pytest.fixture
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        features = random.normal(size=(600, 5))
        wanted = 2 * features[:, 0] + features[:, 1] + 2 * (features[:, 4] > 1)
        return features, (wanted + random.logistic(size=600) > 1).astype(np.int64)

    def test_linear_model_extends_beyond_the_last_split(self, data):
        features, labels = data
        fitted = fit(features, labels, np.arange(600), seed=7, log_odds=2)
        assert fitted.start.weights == pytest.approx([2, 1], rel=0.4)
        far = np.zeros((3, 5))
        far[:, 0] = [5, 6, 7]
        boosted = fitted.booster.predict(far, raw_score=True)
        assert len(set(boosted)) == 1
        assert (np.diff(fitted.start.logits(far) + boosted) > 1).all()

    def test_trees_learn_the_residual_of_the_linear_model(self, data):
        features, labels = data
        fitted = fit(features, labels, np.arange(600), seed=7, log_odds=2)
        low, high = np.zeros((2, 1, 5))
        high[0, 4] = 2
        added = [fitted.booster.predict(row, raw_score=True)[0] for row in (low, high)]
        assert added[1] - added[0] > 0.5

    def test_contributions_add_up_to_the_logit(self, data):
        features, labels = data
        fitted = fit(features, labels, np.arange(600), seed=7, log_odds=2)
        description = ClassifierDescription(
            "e:1", 0.5, fitted.start, fitted.calibration, {}, {}, ""
        )
        classifier = Classifier(fitted.booster, FEATURES, description)
        contributions, base = classifier.contributions(features)
        logits = fitted.start.logits(features) + fitted.booster.predict(features, raw_score=True)
        scores = fitted.calibration.apply(logits)
        assert contributions.shape == features.shape
        assert base + contributions.sum(axis=1) == pytest.approx(np.log(scores / (1 - scores)))

    def test_start_is_empty_without_log_odds_columns(self, fitted):
        assert fitted.start == Start([], [], 0.0)
        assert fitted.start.logits(np.ones((3, 4))).tolist() == [0, 0, 0]


class TestSaveAndLoad:
    def test_scores_are_equal_bit_for_bit(self, classifier, saved):
        features, _labels = embeddings(300, seed=4)
        again = Classifier.load(saved)
        assert (
            again.score(texts(features), features).tolist()
            == classifier.score(texts(features), features).tolist()
        )
        assert again.description == classifier.description

    def test_save_writes_three_text_files_without_pickle(self, saved):
        names = {BOOSTER_FILE, DESCRIPTION_FILE, FEATURES_FILE}
        assert {path.name for path in saved.iterdir()} == names
        assert (saved / BOOSTER_FILE).read_text(encoding="utf-8").startswith("tree\n")
        description = json.loads((saved / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        assert description["encoder_tag"] == "feedsieve-encoder:abc"
        assert set(description["calibration"]) == {"slope", "intercept"}
        assert 0 < description["threshold"] < 1

    def test_saving_a_loaded_classifier_gives_the_same_bytes(self, saved, tmp_path_factory):
        again = tmp_path_factory.mktemp("again")
        Classifier.load(saved).save(again)
        for path in saved.iterdir():
            assert (again / path.name).read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("name", [BOOSTER_FILE, DESCRIPTION_FILE, FEATURES_FILE])
    def test_missing_file_raises(self, saved, name):
        (saved / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "not a model", '{"a": 1}', "tree\n"])
    def test_invalid_booster_is_rejected(self, saved, content):
        (saved / BOOSTER_FILE).write_text(content)
        with pytest.raises((lightgbm.basic.LightGBMError, ValueError)):
            Classifier.load(saved)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated_booster_is_rejected(self, saved, share):
        text = (saved / BOOSTER_FILE).read_text(encoding="utf-8")
        (saved / BOOSTER_FILE).write_text(text[: int(share * len(text))], encoding="utf-8")
        with pytest.raises((lightgbm.basic.LightGBMError, ValueError)):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "{}", '{"head": null', "[]"])
    def test_invalid_features_are_rejected(self, saved, content):
        (saved / FEATURES_FILE).write_text(content)
        with pytest.raises(ValueError, match="damaged"):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "{}", '{"threshold": 0.5', "[]"])
    def test_invalid_description_is_rejected(self, saved, content):
        (saved / DESCRIPTION_FILE).write_text(content)
        with pytest.raises((ValueError, KeyError, TypeError)):
            Classifier.load(saved)

    def test_features_in_another_order_are_rejected(self, saved):
        """The same columns in another order would be misread."""
        description = json.loads((saved / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        turned = dict(reversed(description["features"].items()))
        (saved / DESCRIPTION_FILE).write_text(json.dumps(description | {"features": turned}))
        with pytest.raises(ValueError, match="other features than this version computes"):
            Classifier.load(saved)


class TestFit:
    def test_fit_learns_and_reports_validation(self, fitted):
        assert 0 < fitted.threshold < 1
        assert fitted.calibration.slope > 0
        assert 0 < fitted.booster.num_trees() < ROUNDS
        assert fitted.validation["n"] == 400
        assert fitted.validation["average_precision"] > 0.36  # twice that of chance

    def test_mean_score_equals_the_share_of_positives(self, classifier):
        features, labels = embeddings(2000, seed=5)
        assert classifier.score(texts(features), features).mean() == pytest.approx(
            labels.mean(), abs=0.05
        )

    def test_same_seed_gives_the_same_booster(self, fitted):
        features, labels = embeddings(400)
        same = fit(columns(features), labels, np.arange(400), seed=7)
        assert same.booster.model_to_string() == fitted.booster.model_to_string()
        assert (same.threshold, same.calibration) == (fitted.threshold, fitted.calibration)
        other = fit(columns(features), labels, np.arange(400), seed=8)
        assert other.booster.model_to_string() != fitted.booster.model_to_string()

    def test_random_labels_are_not_predicted_on_held_out_rows(self):
        """Only a model that has seen random labels can predict them."""
        features, _labels = embeddings(400)
        labels = np.random.default_rng(1).integers(0, 2, 400)
        fitted = fit(features, labels, np.arange(400), seed=7)
        assert fitted.validation["average_precision"] < 0.7

    def test_groups_are_held_out_together(self):
        features, _labels = embeddings(100)
        labels = np.random.default_rng(1).integers(0, 2, 100)
        copies = [np.tile(part, 4) for part in (labels, np.arange(100))]
        fitted = fit(np.tile(features, (4, 1)), *copies, seed=7)
        assert fitted.validation["average_precision"] < 0.75
        leaking = fit(np.tile(features, (4, 1)), copies[0], np.arange(400), seed=7)
        assert leaking.validation["average_precision"] > 0.9

    @pytest.mark.parametrize("fold", range(5))
    def test_final_booster_learns_from_all_folds(self, fold):
        """A column holds the label in one of the held-out folds only."""
        features, labels = embeddings(400)
        _rest, rows = list(folds(labels, np.arange(400), 7))[fold]
        features[:, 2] = 0
        features[rows, 2] = 50 + labels[rows]
        wide = FIXED | {"num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 10}
        fitted = fit(features, labels, np.arange(400), seed=7, parameters=wide)
        assert fitted.booster.feature_importance()[2] > 0

    def test_label_in_a_single_group_is_rejected(self):
        features, labels = embeddings(100)
        groups = np.where(labels == 1, 0, np.arange(100))
        with pytest.raises(
            ValueError, match=r"there are 1 positive and \d+ negative, and 2 of each are needed"
        ):
            fit(features, labels, groups, seed=7)

    @pytest.mark.parametrize("count", [20, 40])
    def test_fit_works_with_few_rows(self, count):
        features, _labels = embeddings(count)
        labels = (np.arange(count) % 4 == 0).astype(np.int64)
        fitted = fit(features, labels, np.arange(count), seed=7)
        assert 0 < fitted.threshold < 1
        assert fitted.booster.num_trees() >= 1


class Doubling:
    """Embeds a number as a row of that number; yields the last text first."""

    def embed(self, texts, all_submitted=None, eager=True):
        for row in range(len(texts))[::-1]:
            future = Future()
            future.set_result(np.full((1, COLUMNS), float(texts[row]), np.float32))
            yield [row], future


class TestScorer:
    @pytest.fixture
    def scorer(self, classifier) -> Scorer:
        return Scorer(Doubling(), classifier, "feedsieve-classifier:1")

    def test_scores_are_in_the_order_of_texts(self, scorer, classifier):
        done: list[int] = []
        scores = scorer.score(["2", "-1", "0"], done.append)
        expected = [[value] * COLUMNS for value in (2.0, -1.0, 0.0)]
        embeddings = np.array(expected, np.float32)
        assert scores.tolist() == classifier.score(["2", "-1", "0"], embeddings).tolist()
        assert scores[0] > scores[1]
        assert done == [3]

    def test_no_texts(self, scorer):
        assert scorer.score([]).tolist() == []

    def test_score_at_the_threshold_is_positive(self, scorer, fitted):
        assert scorer.threshold == fitted.threshold
        assert scorer.label(scorer.threshold) == "positive"
        assert scorer.label(np.nextafter(scorer.threshold, 0)) == "negative"
