import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from python_process import run_python
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from feedsieve.scoring.features import HEAD, LEXICON
from feedsieve.scoring.handcrafted import HANDCRAFTED
from feedsieve.store.store import MessageStore
from train.data.labelled import read_labeled
from train.data.split import data_fingerprint

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ("--data", LABELED, "--encoder", "tiny", "--report")

# Loads the trained models as the service does, and scores the test part.
LOAD = """
import json, sys
from feedsieve.scoring.model_store import find_pair, load_scorer
from train.data.labelled import read_labeled
from train.data.split import split
from train.evaluation.metrics import evaluate

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
    """Run Python in a folder, with a model store there."""
    environment = os.environ | {
        "BENTOML_HOME": str(cwd / "bentoml"),
        "FEEDSIEVE_CACHE": str(cwd / "cache"),
        "FEEDSIEVE_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return run_python(*arguments, cwd=cwd, env=environment)


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
    return result(folder, report, done.stdout)


def result(folder: Path, report: str, output: str) -> Run:
    metrics = json.loads((folder / report / "metrics.json").read_text(encoding="utf-8"))
    page = (folder / report / "report.html").read_text(encoding="utf-8")
    return Run(folder, output, metrics, page)


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
    def test_metrics_are_complete_and_in_range(self, trained):
        names = ("f1", "precision", "recall", "average_precision", "brier", "ece")
        assert all(0 <= trained.metrics["test"][name] <= 1 for name in names)
        assert 0 < trained.metrics["test"]["positives"] < trained.metrics["test"]["n"]
        assert trained.metrics["test"]["n"] == pytest.approx(64, abs=10)
        assert 0 < trained.metrics["threshold"] < 1
        assert trained.metrics["encoder_tag"].startswith("feedsieve-encoder:")
        assert trained.metrics["classifier_tag"].startswith("feedsieve-classifier:")
        assert 0 < trained.metrics["seconds"] < 120
        assert trained.metrics["seed"] == 7

    def test_output_names_models_and_report(self, trained):
        assert f"F1 {trained.metrics['test']['f1']:.4f}" in trained.output
        assert trained.metrics["classifier_tag"] in trained.output
        assert "first/report.html" in trained.output and "first/metrics.json" in trained.output
        assert "fp32 against PyTorch" in trained.output and "int8 against PyTorch" in trained.output
        assert f"chosen: {trained.metrics['precision']['chosen']}" in trained.output

    def test_adjudicated_labels_judge_and_are_not_trained_on(self, trained, tmp_path):
        shutil.copytree(trained.folder / "tiny", tmp_path / "tiny")
        frame = pd.read_csv(trained.folder / LABELED, dtype=str)
        wrong = (frame["label"] == "1") & (frame.index % 2 == 0)
        frame["adjudicated"] = frame["label"].mask(wrong, "0")
        frame.to_csv(tmp_path / LABELED, index=False)
        judged = train(tmp_path, "judged")
        figures = judged.metrics["test_adjudicated"]
        assert judged.metrics["test"] == trained.metrics["test"]
        assert figures["positives"] < judged.metrics["test"]["positives"]
        assert f"test, by adjudicated labels: F1 {figures['f1']:.4f}" in judged.output
        assert "F1, test, adjudicated" in judged.report

    def test_report_is_self_contained(self, trained):
        assert "<svg" in trained.report
        links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]+)\)""", trained.report)
        outside = [link for pair in links for link in pair if link and not link.startswith("#")]
        assert outside == []
        assert "<script" not in trained.report

    def test_classifier_names_its_encoder(self, trained, loaded):
        tags = [trained.metrics["classifier_tag"], trained.metrics["encoder_tag"]]
        assert loaded["pair"] == tags
        assert loaded["model"] == tags[0]

    def test_description_has_data_and_features(self, trained, loaded):
        frame = read_labeled(trained.folder / LABELED)
        assert loaded["fingerprint"] == data_fingerprint(frame)
        assert loaded["features"] == {
            LEXICON: 1,
            HEAD: 1,
            **dict.fromkeys(HANDCRAFTED, 1),
            "embedding": 0,
        }

    def test_served_model_has_the_evaluated_metrics(self, trained, loaded):
        assert loaded["test"] == trained.metrics["test"]

    def test_models_have_their_files_and_no_pickle(self, trained):
        files = {
            path.name
            for path in (trained.folder / "bentoml" / "models").rglob("*")
            if path.is_file() and path.parent.parent.parent.name == "models"
        }
        assert files == {
            "model.onnx", "tokenizer.json", "encoder.json", "reference.json",
            "booster.txt", "classifier.json", "features.json", "card.md", "model.yaml",
        }  # fmt: skip

    def test_every_stored_message_is_scored(self, trained, loaded):
        store = MessageStore.open(trained.folder / DATABASE)
        tag = trained.metrics["classifier_tag"]
        assert store.count() == 400
        assert store.unscored(tag, 10) == []
        assert store.shown_model("another") == tag
        for identifier, score in loaded["scores"].items():
            assert store.find(tag, [identifier])[identifier].score == pytest.approx(score, abs=1e-9)
        store.close()

    def test_first_message_of_the_feed_is_in_the_report(self, trained):
        store = MessageStore.open(trained.folder / DATABASE)
        first = store.feed(trained.metrics["classifier_tag"], 1).items[0]
        store.close()
        assert first.text.split("\n")[0].split("&")[0][:20] in trained.report

    def test_data_of_an_earlier_training_gives_equal_metrics(self, trained):
        fingerprint = data_fingerprint(read_labeled(trained.folder / LABELED))
        arguments = ["--as-of", fingerprint[:8], "--encoder", "tiny", "--report", "again"]
        done = python("-m", "train", *arguments, cwd=trained.folder)
        assert done.returncode == 0, done.stderr
        assert f"labels of {LABELED}, fingerprint {fingerprint}" in done.stdout
        again = result(trained.folder, "again", done.stdout)
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

    def test_metrics_are_those_of_fine_tuning(self, tuned):
        assert 0 < tuned.metrics["test"]["average_precision"] <= 1
        assert {epoch["encoder"] for epoch in tuned.metrics["finetuning"]} == {1, 2, 3, 4}
        assert tuned.metrics["features"][HEAD] == 1
        assert tuned.metrics["features"]["embedding"] == 0
        assert "out-of-fold logits" in tuned.metrics["precision"]["reason"]

    def test_served_model_has_the_evaluated_metrics(self, tuned):
        tag = tuned.metrics["classifier_tag"]
        done = python("-c", LOAD, tag, LABELED, "7", cwd=tuned.folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["test"] == tuned.metrics["test"]

    def test_report_and_card_describe_fine_tuning(self, tuned):
        assert "Fine-tuning" in tuned.report
        for tag in (tuned.metrics["classifier_tag"], tuned.metrics["encoder_tag"]):
            card = tuned.folder / "bentoml" / "models" / tag.replace(":", "/") / "card.md"
            assert "each without one fold" in card.read_text(encoding="utf-8")

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

    def test_checkpoints_are_removed_once_the_models_are_saved(self, tuned):
        assert not list((tuned.folder / "cache").glob("finetune-*"))
        assert (tuned.folder / "cache").is_dir()


class TestAudit:
    def test_held_out_scores_can_be_audited(self, trained):
        arguments = ("--data", LABELED, "--scores", "first/held_out.csv", "--out", "audit.csv")
        done = python("-m", "train.audit", *arguments, cwd=trained.folder)
        assert done.returncode == 0, done.stderr
        held_out = pd.read_csv(trained.folder / "first" / "held_out.csv")
        views = ["score", "words", "encoder", "neighbours"]
        assert list(held_out.columns) == ["msg_id", *views, "fold", "fingerprint"]
        assert sorted(set(held_out["fold"])) == [0, 1, 2, 3, 4]
        assert held_out[views].min().min() >= 0
        assert held_out[views].max().max() <= 1
        table = pd.read_csv(trained.folder / "audit.csv", dtype=str)
        for name in views:
            assert f"{name} " in table["reason"][0]
        assert table["neighbours"][0].startswith(("negative, score", "positive, score"))
        assert set(table["label"]) <= {"0", "1"}
        assert len(table) > 0


class TestErrors:
    def test_invalid_rows_are_named_before_training(self, tmp_path):
        (tmp_path / LABELED).write_text("msg_id,msg,label\n1,flat,maybe\n1,,0\n")
        done = python("-m", "train", *ARGUMENTS, "report", cwd=tmp_path)
        assert done.returncode == 1
        assert f"train: {LABELED}: cannot train on this" in done.stderr
        assert "line 2, msg_id '1': 'maybe'" in done.stderr
        assert "line 3, msg_id '1'" in done.stderr
        assert "Traceback" not in done.stderr
        assert models_in(tmp_path) == {}
        assert not (tmp_path / "report" / "metrics.json").exists()

    def test_missing_model_names_the_command(self, tmp_path):
        script = """
from feedsieve.scoring.model_store import ModelNotFound, load_scorer
try:
    load_scorer("feedsieve-classifier:latest")
except ModelNotFound as error:
    print(error)
"""
        done = python("-c", script, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "no feedsieve-classifier:latest" in done.stdout
        assert "`make train`" in done.stdout
        assert "`python -m train --data LABELED.csv`" in done.stdout

    def test_model_of_another_version_is_rejected(self, trained):
        script = """
import json, sys
from pathlib import Path
from feedsieve.scoring import model_store
from feedsieve.scoring.model_store import ModelNotFound, find_pair
with model_store.new_model("another") as (tag, place):
    old = json.loads((model_store.folder(sys.argv[1]) / "classifier.json").read_text())
    del old["start"]
    (place / "classifier.json").write_text(json.dumps(old))
try:
    find_pair(tag)
except ModelNotFound as error:
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
    def test_damaged_model_is_named(self, trained, tmp_path, model, file):
        """A truncated file gives one line, not a library's message."""
        home = tmp_path / "bentoml"
        shutil.copytree(trained.folder / "bentoml", home)
        name, version = trained.metrics[model].split(":")
        path = home / "models" / name / version / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        tag = trained.metrics["classifier_tag"]
        done = python("-m", "train.behave", "--suite", "flats", "--model", tag, cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert f"behave: {tag} with" in done.stderr
        assert "cannot be loaded, it is damaged or was made by another version" in done.stderr
