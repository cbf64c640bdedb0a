"""Models, message stores and Bentos of an earlier version still work.

tests/earlier was written before the folders by role: a Bento with a tiny encoder trained on sample
messages, a message store that it had scored, and scores of some texts.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from serving import BENTOML, ROOT, serve, wait_until_ready

from feedsieve.scoring.classifier import Classifier
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.model_store import load_pair
from feedsieve.scoring.scorer import Scorer
from feedsieve.store.store import MessageStore

EARLIER = ROOT / "tests" / "earlier"
WITHIN = 0.03  # of a score: the most that two CPUs may differ by


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads((EARLIER / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A BENTOML_HOME of its own with the Bento and its two models."""
    home = tmp_path_factory.mktemp("earlier")
    subprocess.run(
        [BENTOML, "import", EARLIER / "feedsieve.bento"],
        env={"BENTOML_HOME": str(home), "PATH": "", "BENTOML_DO_NOT_TRACK": "True"},
        check=True,
        capture_output=True,
    )
    return home


def model_folder(home: Path, name: str) -> Path:
    folder = home / "models" / name
    return folder / (folder / "latest").read_text(encoding="utf-8").strip()


def test_models_score_as_before(home, expected):
    places = model_folder(home, "feedsieve-encoder"), model_folder(home, "feedsieve-classifier")
    scorer = load_pair(*places, "feedsieve-classifier:earlier", 1)
    scores = scorer.score(expected["texts"])
    assert np.abs(scores - expected["scores"]).max() <= WITHIN
    assert scorer.threshold == expected["threshold"]


def test_models_score_as_before_to_rounding_on_the_same_backend(home, expected):
    """In 32 bits, CPUs differ in the last bits only."""
    encoder = Encoder(model_folder(home, "feedsieve-encoder"), 1, "onnxruntime-f32")
    classifier = Classifier.load(model_folder(home, "feedsieve-classifier"))
    scores = Scorer(encoder, classifier, "feedsieve-classifier:earlier").score(expected["texts"])
    assert np.abs(scores - expected["onnxruntime-f32"]).max() <= 1e-5


def test_message_store_opens_with_its_scores(tmp_path):
    database = tmp_path / "messages.db"
    shutil.copyfile(EARLIER / "messages.db", database)
    store = MessageStore.open(database)
    assert store.count() == 60
    [model] = {store.shown_model("none")}
    page = store.feed(model, 100)
    assert len(page.items) > 30
    assert store.unscored(model, 1) == []
    assert [item.score for item in page.items] == sorted(
        (i.score for i in page.items), reverse=True
    )


def test_bento_serves(home, expected, tmp_path):
    database = tmp_path / "messages.db"
    shutil.copyfile(EARLIER / "messages.db", database)
    [source] = home.glob("bentos/feedsieve/*/src")
    environment = {
        "BENTOML_HOME": str(home),
        "FEEDSIEVE_DB": str(database),
        "PYTHONPATH": str(source),  # before this checkout, which is installed here
    }
    with serve(environment, tmp_path, "feedsieve:latest", source=tmp_path) as server:
        wait_until_ready(server)
        answer = server.client.post("/score", json={"texts": expected["texts"][:10]}).json()
        assert server.client.get("/feed").json()["items"]
    scores = [text["score"] for text in answer]
    assert np.abs(np.array(scores) - expected["scores"][:10]).max() <= WITHIN
