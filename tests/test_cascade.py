import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import lightgbm
import numpy as np
import pytest
from sklearn.metrics import f1_score

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.cascade import Cascade
from feedsieve.scoring.classifier import Classifier, ClassifierDescription, Start
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.explain import explain
from feedsieve.scoring.features import Features
from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.scorer import MIN_TEXTS, Scorer
from feedsieve.scoring.word_model import WordModel
from train.classifier.boosting import Fitted
from train.classifier.cascade import MOST_LOST, choose, put_before

WIDTH = 4
BOUND = -0.5
# -1 for a text with "шум", 1 for one with "сдам", 0 for others.
WORDS = WordModel(Lexicon([" шум ", " сдам "], np.ones(2), np.array([-1.0, 1.0]), 0.0))
TEXTS = ["сдам квартиру", "шум", "кошка", "шум и гам", ""]
BY_WORDS = [False, True, False, True, False]


class Counting(Encoder):
    """Embeds a text as its length and records the texts."""

    description = SimpleNamespace(dimension=WIDTH)

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts, all_submitted=None, eager=True):
        self.embedded += texts
        for row, text in enumerate(texts):
            future = Future()
            future.set_result(np.full((1, WIDTH), len(text), np.float32))
            yield [row], future


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    features = Features(WORDS, None, WIDTH)
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(400, sum(features.blocks.values())))
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(columns, (columns[:, -1] > 0).astype(int)),
        5,
    )
    description = ClassifierDescription(
        encoder_tag="feedsieve-encoder:1",
        threshold=0.5,
        start=Start([0.5], [0.0], 0.0),
        calibration=Calibration(1.0, 0.0),
        features=features.blocks,
        metrics={},
        data_fingerprint="",
        cascade=Cascade(BOUND, Calibration(2.0, -1.5)),
    )
    return Classifier(booster, features, description)


def scorer(classifier: Classifier, **flags: bool) -> tuple[Scorer, list[str]]:
    encoder = Counting()
    return Scorer(encoder, classifier, "feedsieve-classifier:1", **flags), encoder.embedded


class TestScorer:
    def test_encoder_reads_only_texts_the_word_model_is_unsure_of(self, classifier):
        with_cascade, embedded = scorer(classifier)
        found = with_cascade.score_texts(TEXTS)
        assert found.by_words.tolist() == BY_WORDS
        assert embedded == [text for text, sure in zip(TEXTS, BY_WORDS, strict=True) if not sure]

    def test_embedded_texts_score_as_without_cascade(self, classifier):
        with_cascade, plain = scorer(classifier)[0], scorer(classifier, cascade=False)[0]
        found, expected = with_cascade.score_texts(TEXTS), plain.score_texts(TEXTS)
        assert not expected.by_words.any()
        read = ~found.by_words
        assert found.scores[read].tolist() == expected.scores[read].tolist()
        assert (found.scores != expected.scores)[found.by_words].all()

    def test_encoder_reads_all_texts_without_cascade(self, classifier):
        plain, embedded = scorer(classifier, cascade=False)
        assert (
            plain.score(TEXTS).tolist()
            == classifier.score(TEXTS, Counting().encode(TEXTS)).tolist()
        )
        assert embedded == TEXTS

    def test_word_model_score_is_negative_and_a_probability(self, classifier):
        with_cascade, _embedded = scorer(classifier)
        [score] = with_cascade.score(["шум"])
        assert score == pytest.approx(1 / (1 + np.exp(3.5)))
        assert with_cascade.label(score) == "negative"

    def test_precomputed_embeddings_give_the_same_scores(self, classifier):
        with_cascade, _embedded = scorer(classifier)
        known = with_cascade.score_embedded(TEXTS, Counting().encode(TEXTS))
        assert known.tolist() == with_cascade.score(TEXTS).tolist()

    def test_features_are_computed_in_groups_if_eager(self, classifier):
        """With `eager=False` each batch of this encoder, one text, is handled alone."""
        plain = scorer(classifier, cascade=False)[0]
        texts = [f"{text} {turn}" for turn in range(7) for text in TEXTS]
        together, alone = list[int](), list[int]()
        scores = plain.score(texts, together.append)
        assert together == [MIN_TEXTS, MIN_TEXTS, len(texts) - 2 * MIN_TEXTS]
        assert plain.score(texts, alone.append, eager=False).tolist() == scores.tolist()
        assert alone == [1] * len(texts)
        assert scores.tolist() == classifier.score(texts, Counting().encode(texts)).tolist()

    def test_progress_adds_up(self, classifier):
        done: list[int] = []
        scorer(classifier)[0].score(TEXTS, done.append)
        assert sum(done) == len(TEXTS)

    def test_no_texts(self, classifier):
        found = scorer(classifier)[0].score_texts([])
        assert found.scores.shape == found.by_words.shape == (0,)

    def test_cascade_is_saved_with_the_classifier(self, classifier, tmp_path: Path):
        classifier.save(tmp_path)
        assert Classifier.load(tmp_path).description.cascade == classifier.description.cascade
        path = tmp_path / "classifier.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields.pop("cascade")  # as written by earlier versions
        path.write_text(json.dumps(fields), encoding="utf-8")
        assert Classifier.load(tmp_path).description.cascade is None


class TestExplanation:
    def test_word_model_score_is_explained_by_words_alone(self, classifier, monkeypatch):
        with_cascade, embedded = scorer(classifier)
        monkeypatch.setattr(Counting, "description", replaced(), raising=False)
        monkeypatch.setattr(Counting, "tokenize", lambda _self, texts: [t.split() for t in texts])
        explanation = explain(with_cascade, "шум шум шум шум шум")
        assert embedded == []
        assert [feature.name for feature in explanation.features] == ["its words"]
        total = explanation.base + sum(feature.contribution for feature in explanation.features)
        assert total == pytest.approx(explanation.logit)
        [score] = with_cascade.score(["шум шум шум шум шум"])
        assert explanation.logit == pytest.approx(np.log(score / (1 - score)))


def replaced():
    from feedsieve.scoring.encoder import EncoderDescription

    return EncoderDescription("x", "mean", "", 64, WIDTH, "int8", {})


def without_cascade(scores: np.ndarray) -> Fitted:
    """Return a classifier with these out-of-fold scores, (messages,)."""
    folds = np.zeros(len(scores), int)
    start, calibration = Start([], [], 0.0), Calibration(1.0, 0.0)
    return Fitted(None, start, calibration, 0.5, scores, folds, {"f1": 0.25})


def messages(count: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits of a word model, scores of a better model, and labels, a fifth positive."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.2).astype(int)
    lexical = rng.normal(np.where(labels == 1, 1.0, -1.5), 0.7)
    scores = 1 / (1 + np.exp(-rng.normal(np.where(labels == 1, 3.0, -3.0), 1.5)))
    return lexical, scores, labels


class TestChoice:
    def test_chosen_cascade_skips_most_messages_and_loses_few_positives(self):
        lexical, scores, labels = messages()
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is not None
        sure = cascade.is_sure(lexical)
        found = (labels == 1) & (scores >= 0.5)
        assert sure.mean() > 0.4
        assert 0 < (sure & found).sum() / found.sum() <= MOST_LOST

    def test_chosen_cascade_keeps_f1_on_unseen_messages(self):
        cascade = choose(*messages(), 0.5)
        lexical, scores, labels = messages(seed=1)
        assert cascade is not None
        without = f1_score(labels, scores >= 0.5)
        decided = np.where(cascade.is_sure(lexical), 0, scores >= 0.5)
        assert f1_score(labels, decided) > without - 0.005

    def test_few_positives_give_no_cascade(self):
        lexical, scores, labels = messages(2000)
        assert choose(lexical, scores, labels, 0.5) is None

    def test_useless_word_model_answers_next_to_nothing(self):
        _lexical, scores, labels = messages()
        lexical = np.random.default_rng(2).normal(size=len(labels))
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is None or cascade.is_sure(lexical).mean() < 0.02

    def test_word_model_answers_are_below_the_threshold(self):
        lexical, scores, labels = messages()
        lexical[labels == 1] = 9.0  # so that the word model is sure of everything
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is not None
        assert cascade.calibration.apply(lexical[cascade.is_sure(lexical)]).max() < 0.5

    def test_held_out_metrics_include_the_cascade(self):
        lexical, scores, labels = messages()
        plain = without_cascade(scores)
        fitted = put_before(plain, lexical, labels)
        sure = fitted.cascade.is_sure(lexical)
        assert fitted.held_out[~sure].tolist() == scores[~sure].tolist()
        assert (fitted.held_out[sure] < 0.5).all()
        assert fitted.validation["by_words"] == pytest.approx(sure.mean())
        assert fitted.validation["f1_without_cascade"] == 0.25
        assert fitted.validation["f1"] == pytest.approx(f1_score(labels, fitted.held_out >= 0.5))

    def test_classifier_is_unchanged_without_a_safe_cascade(self):
        lexical, scores, labels = messages(2000)
        plain = without_cascade(scores)
        assert put_before(plain, lexical, labels) is plain
