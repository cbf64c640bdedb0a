"""`import feedsieve`: the public names, imported on first use."""

import subprocess
import sys
from typing import get_type_hints

import pytest
from serving import ROOT

import feedsieve
from feedsieve.scoring import model_store

LIGHT = """
import sys
import feedsieve
assert feedsieve.__version__
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_public_names_are_their_classes():
    from feedsieve import Message, MessageStore, Scorer, __version__

    assert Message.__module__ == "feedsieve.message"
    assert MessageStore.__module__ == "feedsieve.store.store"
    assert Scorer.__module__ == "feedsieve.scoring.scorer"
    assert {"Message", "MessageStore", "Scorer", "__version__"} == set(feedsieve.__all__)
    assert __version__ == feedsieve.__version__


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'feedsieve' has no attribute 'Nothing'"):
        _ = feedsieve.Nothing
    with pytest.raises(ImportError):
        from feedsieve import Nothing  # noqa: F401


def test_import_loads_no_dependency():
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {"numpy", "bentoml", "sqlalchemy", "pydantic", "lightgbm", "tokenizers"}
    assert heavy & set(done.stdout.split()) == set()


def test_scorer_load_passes_its_arguments_to_the_model_store(monkeypatch):
    calls = []
    monkeypatch.setattr(
        model_store, "load_scorer", lambda *args, **options: calls.append((args, options))
    )
    feedsieve.Scorer.load()
    feedsieve.Scorer.load("feedsieve-classifier:1", 2, cascade=False)
    assert calls == [
        (("feedsieve-classifier:latest", 0), {"cascade": True}),
        (("feedsieve-classifier:1", 2), {"cascade": False}),
    ]
    assert get_type_hints(feedsieve.Scorer.load)["return"] is feedsieve.Scorer


def test_scorer_load_without_a_model_names_the_command(home):
    with pytest.raises(model_store.ModelNotFound, match="`make train` makes a model"):
        feedsieve.Scorer.load("feedsieve-classifier:none")


def test_loaded_scorer_scores_texts(trained_tag):
    scorer = feedsieve.Scorer.load(trained_tag, threads=1)
    flat, greeting = scorer.score(["Сдаётся квартира у моря", "Всем привет"])
    assert 0 < greeting < flat < 1
