import json
from concurrent.futures import Future
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsieve.calibration import Calibration
from feedsieve.classifier import (
    BOOSTER_FILE,
    DESCRIPTION_FILE,
    Classifier,
    ClassifierDescription,
    Start,
)
from feedsieve.features import FILE as FEATURES_FILE
from feedsieve.features import Features
from feedsieve.lexicon import Lexicon
from feedsieve.scorer import Scorer
from train.classifier import FIXED, ROUNDS, Fitted, fit, folds

COLUMNS = 16
# A lexicon without pieces says the same of every text: these classifiers go by the embedding.
FEATURES = Features(Lexicon([], np.empty(0), np.empty(0), 0.0), None, COLUMNS)


def embeddings(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features that tell most labels, and the labels, one in four positive."""
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
    def test_one_for_each_row_between_0_and_1(self, classifier):
        features, labels = embeddings(500, seed=1)
        scores = classifier.score(texts(features), features)
        assert scores.shape == (500,)
        assert (scores > 0).all() and (scores < 1).all()
        assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.2

    def test_features_far_from_all_that_was_seen(self, classifier):
        features = np.array([[1e30] * COLUMNS, [-1e30] * COLUMNS, [0.0] * COLUMNS], np.float32)
        scores = classifier.score(texts(features), features)
        assert (scores > 0).all() and (scores < 1).all()

    def test_no_rows(self, classifier):
        assert classifier.score([], np.empty((0, COLUMNS), np.float32)).shape == (0,)

    def test_a_row_alone_scores_as_in_company(self, classifier):
        features, _labels = embeddings(20, seed=2)
        alone = [float(classifier.score(texts(row[None]), row[None])[0]) for row in features]
        assert classifier.score(texts(features), features).tolist() == alone

    def test_another_number_of_columns_is_refused(self, classifier):
        with pytest.raises(ValueError, match="16 columns, not 17"):
            classifier.score(["one", "two"], np.zeros((2, COLUMNS + 1), np.float32))


class TestCalibration:
    @given(
        st.floats(1e-3, 1e3),
        st.floats(-50, 50),
        st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    )
    def test_it_keeps_the_order_and_stays_between_0_and_1(self, slope, intercept, logits):
        scores = Calibration(slope, intercept).apply(np.sort(np.array(logits)))
        assert (np.diff(scores) >= 0).all()
        assert (scores > 0).all() and (scores < 1).all()

    def test_it_is_the_sigmoid(self):
        scores = Calibration(2.0, -1.0).apply(np.array([0.5, 0.0, 1.0]))
        assert scores == pytest.approx([0.5, 1 / (1 + np.e), 1 / (1 + 1 / np.e)])

    def test_scores_order_messages_as_the_booster_does(self, classifier):
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

    def test_the_line_goes_on_where_trees_end(self, data):
        features, labels = data
        fitted = fit(features, labels, np.arange(600), seed=7, log_odds=2)
        assert fitted.start.weights == pytest.approx([2, 1], rel=0.4)
        far = np.zeros((3, 5))
        far[:, 0] = [5, 6, 7]
        boosted = fitted.booster.predict(far, raw_score=True)
        assert len(set(boosted)) == 1
        assert (np.diff(fitted.start.logits(far) + boosted) > 1).all()

    def test_trees_learn_what_the_line_leaves_open(self, data):
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

    def test_without_scores_there_is_none(self, fitted):
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

    def test_three_files_of_plain_text_and_no_pickle(self, saved):
        names = {BOOSTER_FILE, DESCRIPTION_FILE, FEATURES_FILE}
        assert {path.name for path in saved.iterdir()} == names
        assert (saved / BOOSTER_FILE).read_text(encoding="utf-8").startswith("tree\n")
        description = json.loads((saved / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        assert description["encoder_tag"] == "feedsieve-encoder:abc"
        assert set(description["calibration"]) == {"slope", "intercept"}
        assert 0 < description["threshold"] < 1

    def test_saving_what_was_loaded_changes_nothing(self, saved, tmp_path_factory):
        again = tmp_path_factory.mktemp("again")
        Classifier.load(saved).save(again)
        for path in saved.iterdir():
            assert (again / path.name).read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("name", [BOOSTER_FILE, DESCRIPTION_FILE, FEATURES_FILE])
    def test_a_missing_file(self, saved, name):
        (saved / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "not a model", '{"a": 1}', "tree\n"])
    def test_a_booster_that_is_none(self, saved, content):
        (saved / BOOSTER_FILE).write_text(content)
        with pytest.raises((lightgbm.basic.LightGBMError, ValueError)):
            Classifier.load(saved)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_booster_that_was_cut_short(self, saved, share):
        text = (saved / BOOSTER_FILE).read_text(encoding="utf-8")
        (saved / BOOSTER_FILE).write_text(text[: int(share * len(text))], encoding="utf-8")
        with pytest.raises((lightgbm.basic.LightGBMError, ValueError)):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "{}", '{"head": null', "[]"])
    def test_features_that_are_none(self, saved, content):
        (saved / FEATURES_FILE).write_text(content)
        with pytest.raises(ValueError, match="damaged|Expecting"):
            Classifier.load(saved)

    @pytest.mark.parametrize("content", ["", "{}", '{"threshold": 0.5', "[]"])
    def test_a_description_that_is_none(self, saved, content):
        (saved / DESCRIPTION_FILE).write_text(content)
        with pytest.raises((ValueError, KeyError, TypeError)):
            Classifier.load(saved)

    def test_features_of_another_version(self, saved):
        """The same columns in another order would be read as what they are not."""
        description = json.loads((saved / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        turned = dict(reversed(description["features"].items()))
        (saved / DESCRIPTION_FILE).write_text(json.dumps(description | {"features": turned}))
        with pytest.raises(ValueError, match="other features than this version computes"):
            Classifier.load(saved)


class TestFit:
    def test_it_learns_and_says_how_well(self, fitted):
        assert 0 < fitted.threshold < 1
        assert fitted.calibration.slope > 0
        assert 0 < fitted.booster.num_trees() < ROUNDS
        assert fitted.validation["n"] == 400
        assert fitted.validation["average_precision"] > 0.36  # twice that of chance

    def test_scores_are_probabilities(self, classifier):
        features, labels = embeddings(2000, seed=5)
        assert classifier.score(texts(features), features).mean() == pytest.approx(
            labels.mean(), abs=0.05
        )

    def test_the_seed_decides(self, fitted):
        features, labels = embeddings(400)
        same = fit(columns(features), labels, np.arange(400), seed=7)
        assert same.booster.model_to_string() == fitted.booster.model_to_string()
        assert (same.threshold, same.calibration) == (fitted.threshold, fitted.calibration)
        other = fit(columns(features), labels, np.arange(400), seed=8)
        assert other.booster.model_to_string() != fitted.booster.model_to_string()

    def test_what_is_chosen_is_chosen_on_rows_held_out(self):
        """Labels by chance: who had seen them would tell them; nobody else can."""
        features, _labels = embeddings(400)
        labels = np.random.default_rng(1).integers(0, 2, 400)
        fitted = fit(features, labels, np.arange(400), seed=7)
        assert fitted.validation["average_precision"] < 0.7

    def test_copies_are_held_out_together(self):
        features, _labels = embeddings(100)
        labels = np.random.default_rng(1).integers(0, 2, 100)
        copies = [np.tile(part, 4) for part in (labels, np.arange(100))]
        fitted = fit(np.tile(features, (4, 1)), *copies, seed=7)
        assert fitted.validation["average_precision"] < 0.75
        leaking = fit(np.tile(features, (4, 1)), copies[0], np.arange(400), seed=7)
        assert leaking.validation["average_precision"] > 0.9

    @pytest.mark.parametrize("fold", range(5))
    def test_the_final_booster_learns_from_all_rows(self, fold):
        """A column that says the label, but only in one of the folds that are held out in turn."""
        features, labels = embeddings(400)
        _rest, rows = list(folds(labels, np.arange(400), 7))[fold]
        features[:, 2] = 0
        features[rows, 2] = 50 + labels[rows]
        wide = FIXED | {"num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 10}
        taught = fit(features, labels, np.arange(400), seed=7, parameters=wide)
        assert taught.booster.feature_importance()[2] > 0

    def test_a_label_that_is_one_message_many_times_is_refused(self):
        features, labels = embeddings(100)
        groups = np.where(labels == 1, 0, np.arange(100))
        with pytest.raises(
            ValueError, match="2 positive and 2 negative are needed, and there are 1 and"
        ):
            fit(features, labels, groups, seed=7)

    @pytest.mark.parametrize("count", [20, 40])
    def test_as_few_rows_as_are_read(self, count):
        features, _labels = embeddings(count)
        labels = (np.arange(count) % 4 == 0).astype(np.int64)
        fitted = fit(features, labels, np.arange(count), seed=7)
        assert 0 < fitted.threshold < 1
        assert fitted.booster.num_trees() >= 1


class Doubling:
    """An encoder of numbers: the text's number fills its row. The last row is the first to come."""

    def embed(self, texts, all_begun=None, eager=True):
        for row in range(len(texts))[::-1]:
            future = Future()
            future.set_result(np.full((1, COLUMNS), float(texts[row]), np.float32))
            yield [row], future


class TestScorer:
    @pytest.fixture
    def scorer(self, classifier) -> Scorer:
        return Scorer(Doubling(), classifier, "feedsieve-classifier:1")

    def test_texts_in_their_order(self, scorer, classifier):
        done: list[int] = []
        scores = scorer.score(["2", "-1", "0"], done.append)
        expected = [[value] * COLUMNS for value in (2.0, -1.0, 0.0)]
        embeddings = np.array(expected, np.float32)
        assert scores.tolist() == classifier.score(["2", "-1", "0"], embeddings).tolist()
        assert scores[0] > scores[1]
        assert done == [3]

    def test_no_texts(self, scorer):
        assert scorer.score([]).tolist() == []

    def test_a_score_at_the_threshold_is_positive(self, scorer, fitted):
        assert scorer.threshold == fitted.threshold
        assert scorer.label(scorer.threshold) == "positive"
        assert scorer.label(np.nextafter(scorer.threshold, 0)) == "negative"
