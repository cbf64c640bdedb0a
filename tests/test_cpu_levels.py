"""One model on CPUs with more and fewer instructions: its scores are alike."""

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

from feedsieve import models
from feedsieve.message import Message
from feedsieve.readers import read_messages
from feedsieve.store import MessageStore

LARGEST_DIFFERENCE, MEAN_DIFFERENCE = 0.03, 0.003  # of scores, between any two CPUs


def run(code: str, **environment: str) -> str:
    """Return what a process of its own prints, as a user of another CPU would start it."""
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
from feedsieve.encoder import Encoder
from feedsieve.models import load_scorer
from feedsieve.scorer import Scorer
texts = json.load(open(sys.argv[1] if len(sys.argv) > 1 else "TEXTS"))
scorer = load_scorer("feedsieve-classifier:latest", 2, cascade=False)
alone = [scorer.score([text])[0] for text in texts[:30]]
backend = scorer.encoder.backend.spec.name
encoder = Encoder(scorer.encoder.folder, 1, backend)
one = Scorer(encoder, scorer.classifier, scorer.model, cascade=False)
print(json.dumps({
    "backend": backend,
    "threshold": scorer.threshold,
    "scores": scorer.score(texts).tolist(),
    "alone": alone,
    "one thread": one.score(texts[:30]).tolist(),
}))
"""


def assert_alike(scores: list[np.ndarray]) -> None:
    """Assert the stated bounds between any two of `scores`, each (texts,)."""
    assert len(scores) > 1
    for one, other in combinations(scores, 2):
        differences = np.abs(one - other)
        assert differences.max() <= LARGEST_DIFFERENCE
        assert differences.mean() <= MEAN_DIFFERENCE


class TestLevels:
    """One model, trained once, on CPUs with more and fewer instructions."""

    @pytest.fixture(scope="class")
    @classmethod
    def scored(cls, trained, sample, tmp_path_factory):
        texts = [text for text in _messages(sample) if text][:150]
        file = tmp_path_factory.mktemp("levels") / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        code = SCORES.replace('"TEXTS"', repr(str(file)))
        found = {"": json.loads(run(code, BENTOML_HOME=str(trained)))}
        for level in levels():
            found[level] = json.loads(
                run(code, BENTOML_HOME=str(trained), ONEDNN_MAX_CPU_ISA=level)
            )
        return found

    def test_scores_are_alike(self, scored):
        whole = np.array(scored[""]["scores"])
        threshold = scored[""]["threshold"]
        assert 0.05 < (whole >= threshold).mean() < 0.5
        assert_alike([np.array(found["scores"]) for found in scored.values()])
        for found in scored.values():
            flipped = (np.array(found["scores"]) >= threshold) != (whole >= threshold)
            assert np.abs(whole[flipped] - threshold).max(initial=0) <= LARGEST_DIFFERENCE

    def test_company_and_threads_change_nothing(self, scored):
        """To the last bit, on every level."""
        for level, found in scored.items():
            assert found["alone"] == found["scores"][:30], level
            assert found["one thread"] == found["scores"][:30], level

    def test_real_messages(self, trained, corpus, tmp_path):
        texts = corpus["msg"].tolist()[:1000]
        file = tmp_path / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        code = SCORES.replace('"TEXTS"', repr(str(file)))
        wanted = [level for level in ("AVX2", "AVX512_CORE_VNNI") if level in levels()]
        found = [
            np.array(json.loads(run(code, BENTOML_HOME=str(trained), **more))["scores"])
            for more in ({}, *({"ONEDNN_MAX_CPU_ISA": level} for level in wanted))
        ]
        assert_alike(found)


def _messages(sample: Path) -> list[str]:
    return [message.text for message in read_messages(sample / "messages.db")]


SCORE_STORE = """
import sys
from feedsieve.backlog import score_backlog
from feedsieve.message import Message
from feedsieve.models import load_scorer
from feedsieve.readers import read_messages
from feedsieve.store import MessageStore
scorer = load_scorer("feedsieve-classifier:latest", 2)
store = MessageStore.open("DATABASE")
print(len(store.unscored(scorer.model, 1000)))
score_backlog(store, scorer)
"""


@pytest.mark.skipif("AVX2" not in levels(), reason="this CPU has no AVX2")
def test_scores_of_a_database_that_moves_to_another_machine_stay(trained, sample, tmp_path):
    """The other machine scores what is new, and what it would give differs by 0.03 at most."""
    database = tmp_path / "messages.db"
    store = MessageStore.open(database)
    store.add(list(islice(read_messages(sample / "messages.db"), 200)))
    code = SCORE_STORE.replace("DATABASE", str(database))
    home = str(trained)
    assert int(run(code, BENTOML_HOME=home, ONEDNN_MAX_CPU_ISA="AVX2")) > 100
    text = "Сдаётся новая квартира у моря"
    store.add([Message("new", text)])
    assert int(run(code, BENTOML_HOME=home)) == 1  # the rest keeps its scores
    scorer = models.load_scorer("feedsieve-classifier:latest", 1)
    moved = store.feed(scorer.model, 100).items
    here = scorer.score([item.text for item in moved])
    assert_alike([here, np.array([item.score for item in moved])])
