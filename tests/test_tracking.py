"""Runs and versions in real MLflow stores: SQLite files, and a server over HTTP."""

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Found
from mlflow_server import empty, environment, mlflow_server, run, store, train
from model_copies import copy_pair
from serving import ROOT, free_port, serve, wait_for, wait_until_ready
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from train.tracking import mlflow_run, registry
from train.tracking.git_tags import commit_tags
from train.tracking.log_training import figures
from train.tracking.mlflow_run import Terminated, TrackingUnavailable, one_line
from train.tracking.registry import CHALLENGER, CHAMPION

__all__ = ["empty", "store"]

CLASSIFIER_FILES = (
    "booster.txt", "card.md", "classifier.json", "features.json", "model.yaml", "reference.json",
)  # fmt: skip
# Registers a copy of a pair, as its training would.
REGISTER = """
import sys
from pathlib import Path
from train.tracking import mlflow_run, registry, shared_models
tags = sys.argv[1:3]
with mlflow_run.run("train", {}) as run:
    run.log_files(Path("first") / "held_out.csv")
    registry.register(run, registry.Pair(*tags, "f"), shared_models.upload(run, *tags))
"""
# One of two concurrent runs. It prints MLflow's telemetry client, which should be None.
CONCURRENT_RUN = """
import sys
from train.tracking import mlflow_run, registry
with mlflow_run.run("at once", {"number": sys.argv[1]}) as run, run.recording():
    for step in range(20):
        run.log(metrics={"loss": 1 / (1 + step)}, step=step)
    registry.register(run, registry.Pair(f"feedsieve-classifier:{sys.argv[1]}", "e:1", "f"))
assert not run.lost
from mlflow.telemetry import get_telemetry_client
print(get_telemetry_client())
"""


def files(client: MlflowClient, run: str, folder: str | None = None) -> set[str]:
    found = client.list_artifacts(run, folder)
    below = [files(client, run, one.path) for one in found if one.is_dir]
    return {one.path for one in found if not one.is_dir}.union(*below)


def only_run(client: MlflowClient, experiment: str) -> Found:
    identifier = client.get_experiment_by_name(experiment).experiment_id
    [found] = client.search_runs([identifier])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write(compose(200, 7), folder)
    save_tiny_bert(folder / "private" / "tiny")
    return folder


@pytest.fixture(scope="module")
def server(empty, tmp_path_factory) -> Iterator[str]:
    """The address of a real MLflow server that stores artifacts."""
    with mlflow_server(empty, tmp_path_factory.mktemp("server")) as url:
        yield url


@dataclass(frozen=True)
class Tracked:
    client: MlflowClient
    run: Found
    metrics: dict


@pytest.fixture(scope="module")
def tracked_training(folder, server) -> Tracked:
    done = train(folder, server, "--report", "first")
    assert done.returncode == 0, done.stderr
    assert "not tracked" not in done.stderr
    metrics = json.loads((folder / "first" / "metrics.json").read_text(encoding="utf-8"))
    client = MlflowClient(server)
    return Tracked(client, only_run(client, "train"), metrics)


class TestRun:
    def test_run_has_what_was_logged(self, store):
        with mlflow_run.run("tests", {"encoder": "wheel", "behave": None}) as run, run.recording():
            run.log(metrics={"TF-IDF, SVC.f1": 0.5}, tags={"kind": "test"})
            run.log(metrics={"loss": 0.7}, step=1)
            run.log(metrics={"loss": 0.6}, step=2)
        found = only_run(store, "tests")
        assert found.info.status == "FINISHED"
        assert found.data.params == {"encoder": "wheel", "behave": "None"}
        assert found.data.metrics == {"TF-IDF SVC.f1": 0.5, "loss": 0.6}
        assert found.data.tags["kind"] == "test"
        losses = store.get_metric_history(run.id, "loss")
        assert [(one.step, one.value) for one in losses] == [(1, 0.7), (2, 0.6)]

    def test_run_has_its_dataset_and_source(self, store):
        with mlflow_run.run("tests", {}) as run, run.recording():
            run.log_dataset("labels.csv", "f" * 32, {"test part, messages": 7})
        found = store.get_run(run.id)
        [given] = found.inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("labels.csv", "f" * 32)
        assert json.loads(given.dataset.profile) == {"test part, messages": 7}
        assert found.data.tags["mlflow.source.name"] == "python -m train.tests"

    def test_page_opens_on_the_runs_of_training(self, store):
        at = "http://localhost:5000"
        query = "workflowType=machine_learning"
        assert mlflow_run.runs_page(at) == f"{at}/#/experiments?{query}"
        with mlflow_run.run("train", {}) as run:
            pass
        found = run.client.get_experiment_by_name("train")
        page = mlflow_run.runs_page(at)
        assert page == f"{at}/#/experiments/{found.experiment_id}/runs?{query}"

    def test_error_fails_the_run_and_is_raised(self, store):
        home = Path.home()
        with pytest.raises(ValueError, match="too few"), mlflow_run.run("tests", {}):
            raise ValueError(f"too few in {home}/mine.csv\nand more")
        found = only_run(store, "tests")
        assert found.info.status == "FAILED"
        assert found.data.tags["error"] == "ValueError: too few in ~/mine.csv"

    @pytest.mark.parametrize(
        ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
    )
    def test_signal_kills_the_run(self, store, number, raised):
        # A shell starts what runs in the background with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(raised), mlflow_run.run("tests", {}):
                signal.raise_signal(number)
        finally:
            signal.signal(signal.SIGINT, before)
        found = only_run(store, "tests")
        assert found.info.status == "KILLED"
        assert found.data.tags["error"].startswith(raised.__name__)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_lost_artifact_does_not_stop_the_block(self, store, tmp_path, caplog):
        (tmp_path / "artifacts").write_text("a file where the folder should be")
        with caplog.at_level(logging.WARNING), mlflow_run.run("tests", {}) as run:
            with run.recording():
                run.log_texts({"page.html": "text"})
            resumed = True
        assert resumed
        assert "not tracked in MLflow, the results are not affected" in caplog.text
        found = only_run(store, "tests")
        assert found.info.status == "FAILED"
        assert found.data.tags["error"].startswith("not all of it was tracked")

    def test_default_store_is_below_the_current_directory(self, empty, tmp_path, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".mlflow").mkdir()
        shutil.copyfile(empty, tmp_path / ".mlflow" / "mlflow.db")
        with mlflow_run.run("tests", {}) as run, run.recording():
            run.log_texts({"page.html": "text"})
        assert {path.name for path in tmp_path.iterdir()} == {".mlflow"}
        [page] = (tmp_path / ".mlflow" / "artifacts").rglob("page.html")
        assert run.id in page.parts

    def test_unusable_store_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
        reason = "file/mlflow.db cannot be used .*--no-track"
        with pytest.raises(TrackingUnavailable, match=reason), mlflow_run.run("tests", {}):
            pytest.fail("the block started")

    def test_one_line_hides_passwords(self):
        error = OSError("cannot reach postgresql://me:secret@host/runs")
        assert one_line(error) == "OSError: cannot reach postgresql://host/runs"


@pytest.mark.lab
class TestConcurrency:
    def test_two_processes_can_create_the_file_together(self, tmp_path):
        uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
        started = [
            subprocess.Popen(
                [sys.executable, "-c", CONCURRENT_RUN, str(number)],
                cwd=tmp_path,
                env=environment(tmp_path, uri),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        for process in started:
            out, error = process.communicate(timeout=1200)
            assert process.returncode == 0, error
            assert out.strip() == "None"  # no telemetry
            assert error == ""
        client = MlflowClient(uri)
        [experiment] = [one for one in client.search_experiments() if one.name == "at once"]
        runs = client.search_runs([experiment.experiment_id])
        assert {run.data.params["number"] for run in runs} == {"0", "1"}
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert len(client.get_metric_history(runs[0].info.run_id, "loss")) == 20
        assert len(client.search_model_versions(f"name='{registry.NAME}'")) == 2


@pytest.mark.lab
class TestTraining:
    def test_run_has_every_figure(self, tracked_training):
        found = tracked_training.run.data
        assert figures({"a": {"b": 1, "c": "text"}, "d": 0.5}) == {"a.b": 1, "d": 0.5}
        for name, value in figures(tracked_training.metrics).items():
            if name in found.metrics:
                assert found.metrics[name] == value
            else:
                assert float(found.params[name]) == value
        assert {"test.f1", "validation.f1", "ranking.precision_at_20", "seconds"} <= set(
            found.metrics
        )
        assert {"threshold", "rounds", "seed"} <= set(found.params)

    def test_run_has_options_and_data(self, tracked_training, folder):
        found = tracked_training.run.data.params
        assert (found["encoder"], found["finetune"], found["seed"]) == ("tiny", "False", "7")
        assert found["lightgbm.objective"] == "binary"
        assert len(found["data.fingerprint"]) == 32
        test = tracked_training.metrics["test"]
        assert int(found["data.test.messages"]) == test["n"]
        assert int(found["data.test.positives"]) == test["positives"]
        assert {"version.Python", "version.lightgbm"} <= set(found)
        [given] = tracked_training.run.inputs.dataset_inputs
        assert given.dataset.name == LABELED
        assert given.dataset.digest == found["data.fingerprint"]
        assert commit_tags().keys() <= tracked_training.run.data.tags.keys()

    def test_run_has_report_plots_and_card(self, tracked_training):
        client, run = tracked_training.client, tracked_training.run
        assert files(client, run.info.run_id) == {
            "report.html", "metrics.json", "held_out.csv", "model/card.md", "model/pair.json",
            *(f"model/classifier/{name}" for name in CLASSIFIER_FILES),
            "model/encoder/card.md", "model/encoder/encoder.json", "model/encoder/model.yaml",
            "plots/calibration.svg", "plots/histogram.svg", "plots/precision-recall.svg",
        }  # fmt: skip
        scores = client.download_artifacts(run.info.run_id, "held_out.csv")
        header = Path(scores).read_text().partition("\n")[0]
        assert header == "msg_id,score,words,encoder,neighbours,fold,fingerprint"
        assert run.info.run_name == tracked_training.metrics["classifier_tag"]

    def test_run_hides_paths_and_user(self, tracked_training, folder):
        run = tracked_training.run
        [given] = run.inputs.dataset_inputs
        recorded = str([run.data.params, run.data.tags, vars(run.info), vars(given.dataset)])
        for private in (str(ROOT), str(folder), "private", str(Path.home()), sys.executable):
            assert private not in recorded

    def test_version_points_to_the_pair(self, tracked_training, folder, monkeypatch, server):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        version = registry.behind(CHALLENGER)
        metrics, run = tracked_training.metrics, tracked_training.run
        tags = (metrics["classifier_tag"], metrics["encoder_tag"])
        assert (version.pair.classifier_tag, version.pair.encoder_tag) == tags
        assert version.pair.data_fingerprint == run.data.params["data.fingerprint"]
        assert version.run_id == run.info.run_id
        for tag in tags:
            assert (folder / "bentoml" / "models" / tag.replace(":", "/")).is_dir()
        registry.move(CHAMPION, version.number)
        assert registry.behind(CHAMPION).aliases == {CHALLENGER, CHAMPION}
        pair = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/model/pair.json")
        assert json.loads(pair)["classifier_tag"] == tags[0]

    def test_server_shows_its_page(self, tracked_training, server):
        assert "<html" in httpx.get(server, timeout=60).text

    def test_unreachable_server_stops_training_before_it_starts(self, folder, tmp_path):
        shutil.copytree(folder / "private", tmp_path / "private")
        shutil.copyfile(folder / LABELED, tmp_path / LABELED)
        url = f"http://me:secret@127.0.0.1:{free_port()}"
        done = train(tmp_path, url)
        assert done.returncode == 1
        assert "Retrying" not in done.stderr and "Traceback" not in done.stderr
        error = done.stderr.splitlines()[-1]
        assert error.startswith("train: MLflow at http://127.0.0.1:")
        assert "MLFLOW_TRACKING_URI" in error and "--no-track" in error and "secret" not in error
        assert not (tmp_path / "bentoml" / "models").exists()

    def test_tracking_failure_at_the_end_keeps_the_models(self, folder, empty, tmp_path):
        shutil.copyfile(empty, tmp_path / "mlflow.db")
        (tmp_path / "artifacts").write_text("a file where the folder should be")
        done = train(folder, f"sqlite:///{tmp_path / 'mlflow.db'}", "--report", "second")
        assert done.returncode == 0, done.stderr
        assert "not tracked in MLflow, the results are not affected" in done.stderr
        assert "Traceback" not in done.stderr
        metrics = json.loads((folder / "second" / "metrics.json").read_text(encoding="utf-8"))
        assert (folder / "second" / "report.html").exists()
        for tag in (metrics["classifier_tag"], metrics["encoder_tag"]):
            assert (folder / "bentoml" / "models" / tag.replace(":", "/")).is_dir()
        run = only_run(MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), "train")
        assert run.info.status == "FAILED"
        assert run.data.metrics["test.f1"] == metrics["test"]["f1"]


@pytest.mark.lab
class TestAnotherMachine:
    """A machine with the same MLflow server and a model store of its own."""

    def test_it_promotes_serves_and_rolls_back(self, tracked_training, folder, server, tmp_path):
        first = tracked_training.metrics["classifier_tag"]
        threshold = tracked_training.metrics["threshold"]
        second = copy_pair(folder / "bentoml", "second", threshold=threshold)
        tags = [second, second.replace("classifier", "encoder")]
        assert run(folder, server, "-c", REGISTER, *tags).returncode == 0
        [stored] = {version.stored.encoder_run for version in versions(server)}
        assert files(tracked_training.client, stored) >= {"model/encoder/model.onnx"}

        def here(*command: object) -> str:
            done = run(tmp_path, server, *command)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        promote = ["-m", "train.promote", "--data", folder / LABELED, "--slower", "20"]
        here("-m", "feedsieve", "import", folder / LABELED)
        early = run(tmp_path, server, "-m", "feedsieve", "deploy", second)
        assert early.returncode == 1
        assert second in early.stderr  # it is not here yet
        here("-c", f"from train.tracking import registry; registry.move({CHAMPION!r}, 1)")
        assert "version 2 is champion now" in here(*promote)
        for tag in (first, second):
            assert (tmp_path / "bentoml" / "models" / tag.replace(":", "/")).is_dir()
        here("-m", "feedsieve", "deploy", "champion")
        settings = environment(tmp_path, server)
        settings["FEEDSIEVE_DB"] = str(tmp_path / "data" / "messages.db")
        with serve(settings, tmp_path) as serving:
            wait_until_ready(serving)
            assert serving.client.get("/version").json()["model"] == second
            assert f"champion again: version 1, {first}" in here(*promote, "--rollback")
            here("-m", "feedsieve", "deploy", "champion")
            wait_for(serving, "/version", lambda answer: answer.json()["model"] == first)


def versions(server: str) -> list[registry.Version]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        return registry.versions()
