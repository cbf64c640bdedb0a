import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from feedsieve.features import HEAD, LEXICON, Head
from feedsieve.settings import InvalidSettings, settings
from feedsieve.store import MessageStore
from feedsieve.traits import TRAITS
from train.data import data_fingerprint, read_labeled
from train.embedding import Embedder
from train.finetune import FineTuned
from train.pipeline import score_store
from train.precision import LARGEST_LOSS, Comparison, Figures, compare

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ("--data", LABELED, "--encoder", "tiny", "--report")

# Run beside the trained models: what the service would load and score, against what training said.
LOAD = """
import json, sys
from feedsieve.models import find_pair, load_scorer
from train.data import read_labeled, split
from train.evaluate import evaluate

classifier_tag, labeled, seed = sys.argv[1:]
scorer = load_scorer("feedsieve-classifier:latest")
test = split(read_labeled(labeled), int(seed), progress=False).test
scores = scorer.score(test["msg"].tolist())
print(json.dumps({
    "pair": find_pair(classifier_tag),
    "model": scorer.model,
    "test": evaluate(test["label"], scores, scorer.threshold),
    "scores": dict(zip(test["msg_id"], scores.tolist())),
    "fingerprint": scorer.classifier.description.data_fingerprint,
    "features": scorer.classifier.description.features,
}))
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder that has a model store of its own."""
    environment = os.environ | {
        "BENTOML_HOME": str(cwd / "bentoml"),
        "FEEDSIEVE_CACHE": str(cwd / "cache"),
        "FEEDSIEVE_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def models_in(folder: Path) -> dict[str, int]:
    store = folder / "bentoml" / "models"
    return {
        path.name: sum(version.is_dir() for version in path.iterdir()) for path in store.glob("*")
    }


@dataclass(frozen=True)
class Run:
    folder: Path
    output: str
    metrics: dict
    report: str


def train(folder: Path, report: str, *arguments: str) -> Run:
    done = python("-m", "train", *ARGUMENTS, report, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / report / "metrics.json").read_text(encoding="utf-8"))
    page = (folder / report / "report.html").read_text(encoding="utf-8")
    return Run(folder, done.stdout, metrics, page)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write(compose(400, 7), folder)
    save_tiny_bert(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Run:
    return train(folder, "first", "--db", DATABASE)


@pytest.fixture(scope="module")
def loaded(trained) -> dict:
    done = python("-c", LOAD, trained.metrics["classifier_tag"], LABELED, "7", cwd=trained.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TestTrain:
    def test_metrics_have_what_is_promised(self, trained):
        names = ("f1", "precision", "recall", "average_precision", "brier", "ece")
        assert all(0 <= trained.metrics["test"][name] <= 1 for name in names)
        assert 0 < trained.metrics["test"]["positives"] < trained.metrics["test"]["n"]
        assert trained.metrics["test"]["n"] == pytest.approx(64, abs=10)
        assert 0 < trained.metrics["threshold"] < 1
        assert trained.metrics["encoder_tag"].startswith("feedsieve-encoder:")
        assert trained.metrics["classifier_tag"].startswith("feedsieve-classifier:")
        assert 0 < trained.metrics["seconds"] < 120
        assert trained.metrics["seed"] == 7

    def test_it_says_where_to_look(self, trained):
        assert f"F1 {trained.metrics['test']['f1']:.4f}" in trained.output
        assert trained.metrics["classifier_tag"] in trained.output
        assert "first/report.html" in trained.output and "first/metrics.json" in trained.output
        assert "fp32 against PyTorch" in trained.output and "int8 against PyTorch" in trained.output
        assert f"chosen: {trained.metrics['precision']['chosen']}" in trained.output

    def test_the_report_needs_no_other_file(self, trained):
        assert "<svg" in trained.report
        links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]+)\)""", trained.report)
        outside = [link for pair in links for link in pair if link and not link.startswith("#")]
        assert outside == []
        assert "<script" not in trained.report

    def test_the_classifier_names_its_encoder(self, trained, loaded):
        tags = [trained.metrics["classifier_tag"], trained.metrics["encoder_tag"]]
        assert loaded["pair"] == tags
        assert loaded["model"] == tags[0]

    def test_it_says_what_it_was_fitted_on(self, trained, loaded):
        frame = read_labeled(trained.folder / LABELED)
        assert loaded["fingerprint"] == data_fingerprint(frame)
        assert loaded["features"] == {
            LEXICON: 1,
            HEAD: 1,
            **dict.fromkeys(TRAITS, 1),
            "embedding": 0,
        }

    def test_what_is_served_scores_what_was_evaluated(self, trained, loaded):
        assert loaded["test"] == trained.metrics["test"]

    def test_models_hold_their_files_and_no_pickle(self, trained):
        found = {
            path.name
            for path in (trained.folder / "bentoml" / "models").rglob("*")
            if path.is_file() and path.parent.parent.parent.name == "models"
        }
        assert found == {
            "model.onnx", "tokenizer.json", "encoder.json", "reference.json",
            "booster.txt", "classifier.json", "features.json", "card.md", "model.yaml",
        }  # fmt: skip

    def test_every_message_of_the_store_is_scored(self, trained, loaded):
        store = MessageStore.open(trained.folder / DATABASE)
        tag = trained.metrics["classifier_tag"]
        assert store.count() == 400
        assert store.unscored(tag, 10) == []
        assert store.shown_model("another") == tag
        for identifier, score in loaded["scores"].items():
            assert store.find(tag, [identifier])[identifier].score == pytest.approx(score, abs=1e-9)
        store.close()

    def test_the_best_of_the_feed_is_in_the_report(self, trained):
        store = MessageStore.open(trained.folder / DATABASE)
        first = store.feed(trained.metrics["classifier_tag"], 1).items[0]
        store.close()
        assert first.text.split("\n")[0].split("&")[0][:20] in trained.report

    def test_the_same_seed_gives_the_same_figures(self, trained):
        again = train(trained.folder, "again")
        changing = {"seconds", "encoder_tag", "classifier_tag"}
        for name in trained.metrics.keys() - changing:
            assert again.metrics[name] == trained.metrics[name], name
        assert again.metrics["classifier_tag"] != trained.metrics["classifier_tag"]
        pair = [again.metrics[name] for name in ("encoder_tag", "classifier_tag")]
        assert all(
            name != trained.metrics[f"{kind}_tag"]
            for name, kind in zip(pair, ("encoder", "classifier"), strict=True)
        )


class TestFineTuning:
    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, folder) -> Run:
        return train(folder, "tuned", "--finetune", "--behave", "sample", "--db", DATABASE)

    def test_the_whole_way_is_gone(self, tuned):
        assert 0 < tuned.metrics["test"]["average_precision"] <= 1
        assert {epoch["encoder"] for epoch in tuned.metrics["finetuning"]} == {1, 2, 3, 4}
        assert tuned.metrics["features"][HEAD] == 1
        assert tuned.metrics["features"]["embedding"] == 0
        assert "held-out verdicts" in tuned.metrics["precision"]["reason"]

    def test_what_is_served_scores_what_was_evaluated(self, tuned):
        tag = tuned.metrics["classifier_tag"]
        done = python("-c", LOAD, tag, LABELED, "7", cwd=tuned.folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["test"] == tuned.metrics["test"]

    def test_report_and_card_tell_of_it(self, tuned):
        assert "Fine-tuning" in tuned.report
        for tag in (tuned.metrics["classifier_tag"], tuned.metrics["encoder_tag"]):
            card = tuned.folder / "bentoml" / "models" / tag.replace(":", "/") / "card.md"
            assert "each without a part of the messages" in card.read_text(encoding="utf-8")

    def test_every_epoch_is_tracked(self, tuned):
        tag = tuned.metrics["classifier_tag"]
        query = f"tags.classifier_tag = '{tag}'"
        [run] = mlflow.search_runs(
            experiment_names=["train"], filter_string=query, output_format="list"
        )
        client = mlflow.MlflowClient()
        for row in tuned.metrics["finetuning"]:
            name = f"finetuning.encoder {row['encoder']}.loss"
            history = client.get_metric_history(run.info.run_id, name)
            assert {one.step: one.value for one in history}[row["epoch"]] == row["loss"]

    def test_nothing_is_kept_once_the_models_are_saved(self, tuned):
        assert not list((tuned.folder / "cache").glob("finetune-*"))
        assert (tuned.folder / "cache").is_dir()


class TestAudit:
    def test_held_out_scores_can_be_audited(self, trained):
        arguments = ("--data", LABELED, "--scores", "first/held_out.csv", "--out", "audit.csv")
        done = python("-m", "train.audit", *arguments, cwd=trained.folder)
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(trained.folder / "audit.csv", dtype=str)
        assert set(table["label"]) <= {"0", "1"}
        assert len(table) > 0


class TestRefuses:
    def test_bad_rows_before_anything_is_saved(self, tmp_path):
        (tmp_path / LABELED).write_text("msg_id,msg,label\n1,flat,yes\n1,,0\n")
        done = python("-m", "train", *ARGUMENTS, "report", cwd=tmp_path)
        assert done.returncode == 1
        assert f"train: {LABELED}: cannot train on this" in done.stderr
        assert "line 2, msg_id '1': 'yes'" in done.stderr
        assert "line 3, msg_id '1'" in done.stderr
        assert "Traceback" not in done.stderr
        assert models_in(tmp_path) == {}
        assert not (tmp_path / "report" / "metrics.json").exists()

    def test_no_model_says_which_command_makes_one(self, tmp_path):
        script = """
from feedsieve.models import NoModel, load_scorer
try:
    load_scorer("feedsieve-classifier:latest")
except NoModel as error:
    print(error)
"""
        done = python("-c", script, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "no feedsieve-classifier:latest" in done.stdout
        assert "`make train`" in done.stdout
        assert "`python -m train --data LABELED.csv`" in done.stdout

    def test_a_model_of_another_version_is_not_loaded(self, trained):
        script = """
import json, sys
from pathlib import Path
from feedsieve import models
from feedsieve.models import NoModel, find_pair
with models.new_model("another") as (tag, place):
    old = json.loads((models.folder(sys.argv[1]) / "classifier.json").read_text())
    del old["start"]
    (place / "classifier.json").write_text(json.dumps(old))
try:
    find_pair(tag)
except NoModel as error:
    print(error)
"""
        done = python("-c", script, trained.metrics["classifier_tag"], cwd=trained.folder)
        assert done.returncode == 0, done.stderr
        assert "no classifier of this version of feedsieve; `make train`" in done.stdout

    @pytest.mark.parametrize(
        ("model", "file"),
        [
            ("classifier_tag", "booster.txt"),
            ("classifier_tag", "features.json"),
            ("encoder_tag", "model.onnx"),
            ("encoder_tag", "tokenizer.json"),
            ("encoder_tag", "encoder.json"),
        ],
    )
    def test_a_damaged_model_is_named(self, trained, tmp_path, model, file):
        """Cut to half its length, the model fails in one line, not in a library's words."""
        home = tmp_path / "bentoml"
        shutil.copytree(trained.folder / "bentoml", home)
        name, version = trained.metrics[model].split(":")
        path = home / "models" / name / version / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        tag = trained.metrics["classifier_tag"]
        done = python("-m", "train.behave", "--model", tag, cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert f"behave: {tag} with" in done.stderr
        assert "cannot be loaded, it is damaged or was made by another version" in done.stderr


class Lengths:
    """An encoder that counts letters and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts, progress=None):
        self.asked += texts
        if progress:
            progress(len(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32).reshape(-1, 2)


class TestEmbed:
    def test_equal_texts_are_embedded_once(self, capsys):
        encoder = Lengths()
        embedder = Embedder(encoder)
        rows = embedder.embed(["flat", "to let", " flat ", "flat\u200b"], "embed")
        assert len(encoder.asked) == 2
        assert embedder.embed(["to let"], "again").tolist() == rows[1:2].tolist()
        assert len(encoder.asked) == 2
        assert rows[:, 0].tolist() == [rows[0, 0], 6, rows[0, 0], rows[0, 0]]
        assert "embed: 100%" in capsys.readouterr().err


class Lengthy:
    """A scorer by length that fails once it has scored so many texts."""

    model = "feedsieve-classifier:1"
    threshold = 0.3

    def __init__(self, capacity: int = 10**9) -> None:
        self.left = capacity
        self.asked: list[str] = []

    def score(self, texts, progress=None, eager=True):
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += texts
        return np.array([1 / (1 + len(text)) for text in texts])


class TestScoreStore:
    @pytest.fixture
    def store(self, tmp_path):
        write(compose(120, 3), tmp_path)
        store = MessageStore.open(tmp_path / DATABASE)
        yield store
        store.close()

    def test_nothing_known_is_scored_again(self, store):
        marks = [mark for mark, _text in store.unscored(Lengthy.model, 30)]
        scorer = Lengthy()
        score_store(store, scorer, dict.fromkeys(marks, 0.5))
        assert store.unscored(scorer.model, 10) == []
        assert store.shown_model("another") == scorer.model
        assert len(scorer.asked) == len(set(scorer.asked)) < 95
        assert sum(item.score == 0.5 for item in store.feed(scorer.model, 500).items) == 30

    def test_a_run_that_was_stopped_goes_on_where_it_was(self, store, monkeypatch):
        monkeypatch.setattr("train.pipeline.READ_AT_ONCE", 25)
        stopped, again = Lengthy(capacity=60), Lengthy()
        with pytest.raises(KeyboardInterrupt):
            score_store(store, stopped, {})
        assert len(stopped.asked) == 50
        assert store.shown_model("another") == "another"
        score_store(store, again, {})
        assert not set(again.asked) & set(stopped.asked)
        assert store.unscored(again.model, 10) == []


class Blurred:
    """An encoder of texts that begin with their label, with some noise over it."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode(self, texts, progress=None):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(len(texts), 8)) * self.noise
        rows[:, 0] += [float(text[0]) for text in texts]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def labeled(count: int, positives: int) -> pd.DataFrame:
    labels = [int(number < positives) for number in range(count)]
    rng = np.random.default_rng(0)
    texts = [f"{label} {' '.join(map(chr, rng.integers(97, 20_000, 20)))}" for label in labels]
    return pd.DataFrame({"msg": texts, "label": labels})


class TestPrecision:
    @pytest.fixture
    def _no_words(self, monkeypatch) -> None:
        """Let the encoder alone tell the labels, and not the words of these short texts."""
        monkeypatch.setattr(
            "train.precision.lexical.out_of_fold", lambda texts, *_rest: np.zeros(len(texts))
        )

    def test_8_bits_that_lose_nothing_are_chosen(self):
        embedders = {"fp32": Embedder(Blurred(0.3)), "int8": Embedder(Blurred(0.3))}
        comparison = compare(embedders, labeled(120, 40), seed=7)
        assert comparison.chosen == "int8"
        assert comparison.loss == 0
        assert comparison.mean_cosine == pytest.approx(1, abs=1e-5)
        assert comparison.messages == 120
        assert "int8 loses 0.00 points of F1, under the 0.3 allowed" in comparison.reason

    @pytest.mark.usefixtures("_no_words")
    def test_8_bits_that_cost_quality_are_not(self):
        embedders = {"fp32": Embedder(Blurred(0.2)), "int8": Embedder(Blurred(2.0))}
        comparison = compare(embedders, labeled(120, 40), seed=7)
        assert comparison.chosen == "fp32"
        assert comparison.loss > LARGEST_LOSS
        assert "not under" in str(comparison)
        assert comparison.as_table()["chosen"] == "fp32"
        assert comparison.as_table()["int8"]["lowest_cosine"] == comparison.lowest_cosine

    @pytest.mark.usefixtures("_no_words")
    def test_the_seed_decides(self):
        embedders = {"fp32": Embedder(Blurred(0.4)), "int8": Embedder(Blurred(0.5))}
        frame = labeled(150, 50)
        first = compare(embedders, frame, seed=7)
        assert compare(embedders, frame, seed=7) == first
        assert compare(embedders, frame, seed=8) != first

    @pytest.mark.parametrize("positives", [3, 6])
    def test_few_positives_among_many_messages(self, positives):
        embedders = {"fp32": Embedder(Blurred(0.3)), "int8": Embedder(Blurred(0.3))}
        comparison = compare(embedders, labeled(3000, positives), seed=7)
        assert 1500 <= comparison.messages <= 1505

    def test_positives_that_are_copies_of_one_another(self):
        frame = labeled(60, 12)
        frame.loc[frame["label"] == 1, "msg"] = "1 the same flat to let in the same words"
        frame.loc[0, "msg"] = "1 quite another text about a house by the sea"
        embedders = {name: Embedder(Blurred(0.3)) for name in ("fp32", "int8")}
        assert compare(embedders, frame, seed=7).chosen == "int8"

    def test_an_encoder_that_knows_the_labels_is_judged_by_those_that_did_not(self):
        frame = labeled(120, 40)
        embedders = {"fp32": Embedder(Blurred(0.1)), "int8": Embedder(Blurred(3.0))}
        by_chance = np.random.default_rng(0).normal(size=120)
        tuned = FineTuned(None, Head(np.eye(8)[0], 0.0), by_chance, [])
        comparison = compare(embedders, frame, seed=7, tuned=tuned)
        assert comparison.figures["fp32"].average_precision < 0.6  # not the 1.0 of the embeddings
        tuned = replace(tuned, verdicts=frame["label"].to_numpy() - 0.5)
        comparison = compare(embedders, frame, seed=7, tuned=tuned)
        assert comparison.figures["fp32"] == Figures(1.0, pytest.approx(1.0))
        assert comparison.figures["int8"].f1 < 0.9
        assert comparison.chosen == "fp32"

    def test_three_tenths_of_a_point_are_the_limit(self):
        def comparison(int8: float) -> Comparison:
            figures = {"fp32": Figures(0.8, 0.8), "int8": Figures(int8, 0.8)}
            return Comparison(figures, 0.99, 0.98, 500, True)

        assert comparison(0.7971).chosen == "int8"
        assert comparison(0.81).chosen == "int8"
        assert comparison(0.7969).chosen == "fp32"


class TestSettings:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        for name in [name for name in os.environ if name.startswith("FEEDSIEVE_")]:
            monkeypatch.delenv(name)
        settings.cache_clear()
        yield
        settings.cache_clear()

    def test_defaults_work_on_a_laptop(self):
        assert settings().db == "data/messages.db"
        assert settings().model == "feedsieve-classifier:latest"
        assert settings().threads == 0
        assert settings().cache == Path.home() / ".cache/feedsieve"

    def test_the_environment_decides(self, monkeypatch):
        monkeypatch.setenv("FEEDSIEVE_DB", "postgresql://host/chat")
        monkeypatch.setenv("FEEDSIEVE_THREADS", "3")
        monkeypatch.setenv("FEEDSIEVE_CACHE", "~/elsewhere")
        assert (settings().db, settings().threads) == ("postgresql://host/chat", 3)
        assert settings().cache == Path.home() / "elsewhere"

    def test_a_variable_that_is_set_to_nothing_is_not_set(self, monkeypatch):
        monkeypatch.setenv("FEEDSIEVE_THREADS", "")
        monkeypatch.setenv("FEEDSIEVE_MODEL", "")
        assert settings().threads == 0
        assert settings().model == "feedsieve-classifier:latest"

    @pytest.mark.parametrize("threads", ["-1", "many", "100000"])
    def test_what_is_wrong_is_named(self, monkeypatch, threads):
        monkeypatch.setenv("FEEDSIEVE_THREADS", threads)
        with pytest.raises(InvalidSettings, match="FEEDSIEVE_THREADS"):
            settings()
