import numpy as np
import pytest

from data.generate import DATABASE, compose, write
from feedsieve.store.store import MessageStore
from train.fill_store import score_store


class LengthScorer:
    """A scorer by length that is interrupted once it has scored `capacity` texts."""

    model = "feedsieve-classifier:1"
    threshold = 0.3

    def __init__(self, capacity: int = 10**9) -> None:
        self.left = capacity
        self.scored: list[str] = []

    def score(self, texts, progress=None, eager=True):
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        self.scored += texts
        return np.array([1 / (1 + len(text)) for text in texts])


class TestScoreStore:
    @pytest.fixture
    def store(self, tmp_path):
        write(compose(120, 3), tmp_path)
        store = MessageStore.open(tmp_path / DATABASE)
        yield store
        store.close()

    def test_known_scores_are_not_computed_again(self, store):
        fingerprints = [key for key, _text in store.unscored(LengthScorer.model, 30)]
        scorer = LengthScorer()
        score_store(store, scorer, dict.fromkeys(fingerprints, 0.5))
        assert store.unscored(scorer.model, 10) == []
        assert store.shown_model("another") == scorer.model
        assert len(scorer.scored) == len(set(scorer.scored)) < 95
        assert sum(item.score == 0.5 for item in store.feed(scorer.model, 500).items) == 30

    def test_interrupted_run_resumes(self, store, monkeypatch):
        monkeypatch.setattr("train.fill_store.READ_AT_ONCE", 25)
        interrupted, again = LengthScorer(capacity=60), LengthScorer()
        with pytest.raises(KeyboardInterrupt):
            score_store(store, interrupted, {})
        assert len(interrupted.scored) == 50
        assert store.shown_model("another") == "another"
        score_store(store, again, {})
        assert not set(again.scored) & set(interrupted.scored)
        assert store.unscored(again.model, 10) == []
