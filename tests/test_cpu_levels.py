"""Scores of one model agree on CPUs with more and fewer instructions."""

import json
import os
import subprocess
import sys
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
from cpu_levels import levels
from serving import ROOT

from feedsieve.message import Message
from feedsieve.scoring import model_store
from feedsieve.sources.readers import read_messages
from feedsieve.store.store import MessageStore

LARGEST_DIFFERENCE, MEAN_DIFFERENCE = 0.03, 0.003  # of scores, between any two CPUs


def run(code: str, **environment: str) -> str:
    """Return the output of a new process, with the environment of another CPU."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCORES = """
import json, sys
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.model_store import load_scorer
from feedsieve.scoring.scorer import Scorer
texts, real = json.load(open("TEXTS"))
scorer = load_scorer("feedsieve-classifier:latest", 2, cascade=False)
alone = [scorer.score([text])[0] for text in texts[:30]]
backend = scorer.encoder.backend.spec.name
encoder = Encoder(scorer.encoder.folder, 1, backend)
one = Scorer(encoder, scorer.classifier, scorer.model, cascade=False)
print(json.dumps({
    "backend": backend,
    "threshold": scorer.threshold,
    "scores": scorer.score(texts).tolist(),
    "real": scorer.score(real).tolist(),
    "alone": alone,
    "one thread": one.score(texts[:30]).tolist(),
}))
"""
REAL = ("", "AVX2", "AVX512_CORE_VNNI")  # levels that score the real messages, too


def assert_alike(scores: list[np.ndarray], threshold: float) -> None:
    """Assert the documented bounds between any two of `scores`, each (texts,)."""
    assert len(scores) > 1
    for one, other in combinations(scores, 2):
        differences = np.abs(one - other)
        assert differences.max() <= LARGEST_DIFFERENCE
        assert differences.mean() <= MEAN_DIFFERENCE
        flipped = (one >= threshold) != (other >= threshold)
        assert np.abs(one[flipped] - threshold).max(initial=0) <= LARGEST_DIFFERENCE


class TestLevels:
    """One model, trained once, on CPUs with more and fewer instructions."""

    @pytest.fixture(scope="class")
    @classmethod
    def scored(cls, trained, sample, real_messages, tmp_path_factory):
        texts = [text for text in _messages(sample) if text][:150]
        results = {}
        for level in ("", *levels()):
            file = tmp_path_factory.mktemp("levels") / "texts.json"
            real = real_messages if level in REAL else []
            file.write_text(json.dumps([texts, real]), encoding="utf-8")
            code = SCORES.replace('"TEXTS"', repr(str(file)))
            limit = {"ONEDNN_MAX_CPU_ISA": level} if level else {}
            results[level] = json.loads(run(code, BENTOML_HOME=str(trained), **limit))
        return results

    def test_scores_agree_across_levels(self, scored):
        threshold = scored[""]["threshold"]
        assert 0.05 < (np.array(scored[""]["scores"]) >= threshold).mean() < 0.5
        assert_alike([np.array(result["scores"]) for result in scored.values()], threshold)

    def test_scores_do_not_depend_on_batch_and_threads(self, scored):
        """To the last bit, on every level."""
        for level, result in scored.items():
            assert result["alone"] == result["scores"][:30], level
            assert result["one thread"] == result["scores"][:30], level

    def test_scores_of_real_messages_agree_across_levels(self, scored, real_messages):
        if not real_messages:
            pytest.skip("no real messages; FEEDSIEVE_CORPUS names their folder")
        scores = [np.array(scored[level]["real"]) for level in REAL if level in scored]
        assert len(scores[0]) == len(real_messages)
        assert_alike(scores, scored[""]["threshold"])


def _messages(sample: Path) -> list[str]:
    return [message.text for message in read_messages(sample / "messages.db")]


SCORE_STORE = """
import sys
from feedsieve.serving.backfill import backfill
from feedsieve.message import Message
from feedsieve.scoring.model_store import load_scorer
from feedsieve.sources.readers import read_messages
from feedsieve.store.store import MessageStore
scorer = load_scorer("feedsieve-classifier:latest", 2)
store = MessageStore.open("DATABASE")
print(len(store.unscored(scorer.model, 1000)))
backfill(store, scorer)
"""


@pytest.mark.skipif("AVX2" not in levels(), reason="this CPU has no AVX2")
def test_database_keeps_its_scores_on_another_machine(trained, trained_tag, sample, tmp_path):
    """The other machine scores only new texts; its own scores differ by 0.03 at most."""
    database = tmp_path / "messages.db"
    store = MessageStore.open(database)
    store.add(list(islice(read_messages(sample / "messages.db"), 200)))
    code = SCORE_STORE.replace("DATABASE", str(database))
    home = str(trained)
    assert int(run(code, BENTOML_HOME=home, ONEDNN_MAX_CPU_ISA="AVX2")) > 100
    text = "Сдаётся новая квартира у моря"
    store.add([Message("new", text)])
    assert int(run(code, BENTOML_HOME=home)) == 1  # the rest keeps its scores
    scorer = model_store.load_scorer(trained_tag, 1)
    moved = store.feed(scorer.model, 100).items
    here = scorer.score([item.text for item in moved])
    assert_alike([here, np.array([item.score for item in moved])], scorer.threshold)
