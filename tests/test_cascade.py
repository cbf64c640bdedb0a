import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import lightgbm
import numpy as np
import pytest
from sklearn.metrics import f1_score

from feedsieve.calibration import Calibration
from feedsieve.cascade import Cascade
from feedsieve.classifier import Classifier, ClassifierDescription, Start
from feedsieve.encoder import Encoder
from feedsieve.explain import explain
from feedsieve.features import Features
from feedsieve.lexicon import Lexicon
from feedsieve.scorer import TEXTS_AT_ONCE, Scorer
from train.cascade import MOST_LOST, choose, put_before
from train.classifier import Fitted

WIDTH = 4
BOUND = -0.5
# Says -1 of a text with "шум", 1 of one with "сдам", and nothing of others.
LEXICON = Lexicon([" шум ", " сдам "], np.ones(2), np.array([-1.0, 1.0]), 0.0)
TEXTS = ["сдам квартиру", "шум", "кошка", "шум и гам", ""]
BY_WORDS = [False, True, False, True, False]


class Counting(Encoder):
    """Embeds a text as its length, and knows what it was asked."""

    description = SimpleNamespace(dimension=WIDTH)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts, all_begun=None, eager=True):
        self.asked += texts
        for row, text in enumerate(texts):
            future = Future()
            future.set_result(np.full((1, WIDTH), len(text), np.float32))
            yield [row], future


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    features = Features(LEXICON, None, WIDTH)
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
    return Scorer(encoder, classifier, "feedsieve-classifier:1", **flags), encoder.asked


class TestScorer:
    def test_the_encoder_reads_only_what_words_leave_open(self, classifier):
        with_cascade, asked = scorer(classifier)
        judged = with_cascade.judge(TEXTS)
        assert judged.by_words.tolist() == BY_WORDS
        assert asked == [text for text, sure in zip(TEXTS, BY_WORDS, strict=True) if not sure]

    def test_what_the_encoder_reads_scores_as_without(self, classifier):
        with_cascade, plain = scorer(classifier)[0], scorer(classifier, cascade=False)[0]
        judged, expected = with_cascade.judge(TEXTS), plain.judge(TEXTS)
        assert not expected.by_words.any()
        read = ~judged.by_words
        assert judged.scores[read].tolist() == expected.scores[read].tolist()
        assert (judged.scores != expected.scores)[judged.by_words].all()

    def test_without_a_cascade_all_is_read(self, classifier):
        plain, asked = scorer(classifier, cascade=False)
        assert (
            plain.score(TEXTS).tolist()
            == classifier.score(TEXTS, Counting().encode(TEXTS)).tolist()
        )
        assert asked == TEXTS

    def test_what_words_judge_is_negative_and_a_probability(self, classifier):
        with_cascade, _asked = scorer(classifier)
        [score] = with_cascade.score(["шум"])
        assert score == pytest.approx(1 / (1 + np.exp(3.5)))
        assert with_cascade.label(score) == "negative"

    def test_known_embeddings_change_no_score(self, classifier):
        with_cascade, _asked = scorer(classifier)
        known = with_cascade.score_embedded(TEXTS, Counting().encode(TEXTS))
        assert known.tolist() == with_cascade.score(TEXTS).tolist()

    def test_words_are_looked_at_together_unless_others_are_to_have_the_encoder(self, classifier):
        """In batches of one text, as this encoder makes them, each would be looked at alone."""
        plain = scorer(classifier, cascade=False)[0]
        texts = [f"{text} {turn}" for turn in range(7) for text in TEXTS]
        together, alone = list[int](), list[int]()
        scores = plain.score(texts, together.append)
        assert together == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, len(texts) - 2 * TEXTS_AT_ONCE]
        assert plain.score(texts, alone.append, eager=False).tolist() == scores.tolist()
        assert alone == [1] * len(texts)
        assert scores.tolist() == classifier.score(texts, Counting().encode(texts)).tolist()

    def test_progress_adds_up(self, classifier):
        done: list[int] = []
        scorer(classifier)[0].score(TEXTS, done.append)
        assert sum(done) == len(TEXTS)

    def test_no_texts(self, classifier):
        judged = scorer(classifier)[0].judge([])
        assert judged.scores.shape == judged.by_words.shape == (0,)

    def test_it_is_kept_with_the_classifier(self, classifier, tmp_path: Path):
        classifier.save(tmp_path)
        assert Classifier.load(tmp_path).description.cascade == classifier.description.cascade
        path = tmp_path / "classifier.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields.pop("cascade")  # as classifiers were that knew of none
        path.write_text(json.dumps(fields), encoding="utf-8")
        assert Classifier.load(tmp_path).description.cascade is None


class TestExplanation:
    def test_what_words_judge_is_explained_by_words_alone(self, classifier, monkeypatch):
        with_cascade, asked = scorer(classifier)
        monkeypatch.setattr(Counting, "description", replaced(), raising=False)
        monkeypatch.setattr(Counting, "tokenize", lambda _self, texts: [t.split() for t in texts])
        explanation = explain(with_cascade, "шум шум шум шум шум")
        assert asked == []
        assert [feature.name for feature in explanation.features] == ["its words"]
        total = explanation.base + sum(feature.contribution for feature in explanation.features)
        assert total == pytest.approx(explanation.logit)
        [score] = with_cascade.score(["шум шум шум шум шум"])
        assert explanation.logit == pytest.approx(np.log(score / (1 - score)))


def replaced():
    from feedsieve.encoder import EncoderDescription

    return EncoderDescription("x", "mean", "", 64, WIDTH, "int8", {})


def messages(count: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a lexicon and a better model say, and labels, a fifth of them positive."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.2).astype(int)
    lexical = rng.normal(np.where(labels == 1, 1.0, -1.5), 0.7)
    scores = 1 / (1 + np.exp(-rng.normal(np.where(labels == 1, 3.0, -3.0), 1.5)))
    return lexical, scores, labels


class TestChoice:
    def test_most_messages_for_next_to_no_positives(self):
        lexical, scores, labels = messages()
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is not None
        sure = cascade.is_sure(lexical)
        found = (labels == 1) & (scores >= 0.5)
        assert sure.mean() > 0.4
        assert 0 < (sure & found).sum() / found.sum() <= MOST_LOST

    def test_it_holds_on_messages_that_it_was_not_chosen_on(self):
        cascade = choose(*messages(), 0.5)
        lexical, scores, labels = messages(seed=1)
        assert cascade is not None
        without = f1_score(labels, scores >= 0.5)
        decided = np.where(cascade.is_sure(lexical), 0, scores >= 0.5)
        assert f1_score(labels, decided) > without - 0.005

    def test_few_positives_are_no_reason_to_trust_words(self):
        lexical, scores, labels = messages(2000)
        assert choose(lexical, scores, labels, 0.5) is None

    def test_words_that_know_nothing_answer_next_to_nothing(self):
        _lexical, scores, labels = messages()
        lexical = np.random.default_rng(2).normal(size=len(labels))
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is None or cascade.is_sure(lexical).mean() < 0.02

    def test_what_words_answer_is_below_the_threshold(self):
        lexical, scores, labels = messages()
        lexical[labels == 1] = 9.0  # so that words are sure of everything
        cascade = choose(lexical, scores, labels, 0.5)
        assert cascade is not None
        assert cascade.calibration.apply(lexical[cascade.is_sure(lexical)]).max() < 0.5

    def test_held_out_figures_are_with_the_cascade(self):
        lexical, scores, labels = messages()
        plain = Fitted(None, Start([], [], 0.0), Calibration(1.0, 0.0), 0.5, scores, {"f1": 0.25})
        fitted = put_before(plain, lexical, labels)
        sure = fitted.cascade.is_sure(lexical)
        assert fitted.held_out[~sure].tolist() == scores[~sure].tolist()
        assert (fitted.held_out[sure] < 0.5).all()
        assert fitted.validation["by_words"] == pytest.approx(sure.mean())
        assert fitted.validation["f1_without_cascade"] == 0.25
        assert fitted.validation["f1"] == pytest.approx(f1_score(labels, fitted.held_out >= 0.5))

    def test_a_classifier_is_left_as_it_is_where_no_cascade_is_safe(self):
        lexical, scores, labels = messages(2000)
        plain = Fitted(None, Start([], [], 0.0), Calibration(1.0, 0.0), 0.5, scores, {})
        assert put_before(plain, lexical, labels) is plain
