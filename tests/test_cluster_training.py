"""Training on a cluster gives what one process gives, within noise."""

import ast
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from local_cluster import local_workers
from pandas.testing import assert_frame_equal
from test_house_rules import imports
from test_pipeline import ROOT, python
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from export.pipeline import export_encoder
from export.sources import load
from feedsieve.bulk.score_file import ClusterUnavailable
from feedsieve.scoring.encoder import Encoder
from train import features
from train.__main__ import main as training
from train.classifier.boosting import fit
from train.classifier.handcrafted import handcrafted_features
from train.classifier.parameters import PARAMETERS
from train.compute import dask_cluster, dask_training
from train.compute.base import LOCAL
from train.compute.choose import computing
from train.compute.dask_training import ClusterCompute
from train.feast.feature_store import EMBEDDING, HANDCRAFTED_VIEW

TEXTS = [f"сдаю квартиру {number}, {number} евро" for number in range(600)]
ROWS, COLUMNS = 1200, 24


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_workers(2) as client:
        yield client


@pytest.fixture
def workers(client) -> Iterator[ClusterCompute]:
    compute = ClusterCompute(client)
    yield compute
    compute.close()


@pytest.fixture
def mortal() -> Iterator[ClusterCompute]:
    """Workers to kill; a cluster of their own, since Dask does not always replace them."""
    with local_workers(2) as client:
        compute = ClusterCompute(client)
        yield compute
        compute.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder with an encoder in `fp32` and `int8`."""
    folder = tmp_path_factory.mktemp("encoder")
    export_encoder(load(str(save_tiny_bert(folder / "tiny"))), folder, TEXTS[:50], threads=1)
    return folder


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Columns, the first one log-odds, with missing values, and labels, few of them 1."""
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(ROWS, COLUMNS))
    labels = (columns[:, 0] + columns[:, 1] + rng.normal(size=ROWS) / 2 > 1.5).astype(np.int64)
    columns[rng.random(columns.shape) < 0.05] = np.nan
    columns[:, 0] = np.nan_to_num(columns[:, 0])
    return columns, labels


def rows_of(place: Path) -> dict[str, pd.DataFrame]:
    """Return Feast's rows of messages, without the time of computation."""
    return {
        view: pd.read_parquet(place / view).drop(columns="computed_at")
        for view in (EMBEDDING, HANDCRAFTED_VIEW)
    }


def parameters_in(model: str) -> list[str]:
    """Return the parameter lines of a LightGBM model."""
    return [line for line in model.splitlines() if line.startswith("[")]


# Trees slow enough to kill a worker meanwhile
SLOW = PARAMETERS["frozen"] | {"num_leaves": 31, "learning_rate": 0.01}


def kill_one(workers: ClusterCompute) -> None:
    os.kill(min(workers._client.run(os.getpid).values()), signal.SIGKILL)


class TestEmbedding:
    @pytest.mark.parametrize(("precision", "difference"), [("int8", 0.0), ("fp32", 1e-6)])
    def test_embeddings_equal_those_of_one_process(self, workers, exported, precision, difference):
        folder = exported / precision
        here, done = Encoder(folder, threads=1), []
        there = workers.encoder(here, folder).encode(TEXTS, done.append)
        assert np.abs(there - here.encode(TEXTS)).max() <= difference
        assert sum(done) == len(TEXTS)

    def test_killed_worker_loses_no_embeddings(self, mortal, exported):
        folder = exported / "int8"
        here, done = Encoder(folder, threads=1), []

        def kill(count: int) -> None:
            if not done:
                kill_one(mortal)
            done.append(count)

        there = mortal.encoder(here, folder).encode(TEXTS, kill)
        np.testing.assert_array_equal(there, here.encode(TEXTS))
        assert sum(done) == len(TEXTS)

    def test_folder_may_be_removed(self, workers, exported, tmp_path):
        folder = (exported / "int8").rename(tmp_path / "moved")
        encoder = workers.encoder(Encoder(folder, threads=1), folder)
        folder.rename(exported / "int8")
        assert encoder.encode(TEXTS[:1]).shape == (1, 32)

    def test_encoder_is_removed_from_workers(self, client, exported):
        compute = ClusterCompute(client)
        encoder = compute.encoder(Encoder(exported / "int8"), exported / "int8")
        compute.close()
        name = encoder._broadcast.name
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {False}


class TestFeatures:
    def test_handcrafted_features_equal_those_of_one_process(self, workers):
        texts = TEXTS * 4
        expected = handcrafted_features(texts)
        np.testing.assert_array_equal(handcrafted_features(texts, workers), expected)

    def test_error_on_a_worker_is_raised_here(self, workers):
        with pytest.raises(TypeError):
            workers.map(len, [[1], 2])

    def test_task_that_kills_workers_is_given_up(self, mortal):
        with pytest.raises(ClusterUnavailable, match="a task made workers die several times"):
            mortal.map(os._exit, [1])


class TestBoosting:
    @pytest.fixture(autouse=True)
    def _use_both_workers(self, monkeypatch) -> None:
        monkeypatch.setattr(dask_training, "MIN_ROWS_PER_WORKER", ROWS // 2)

    def test_fit_is_close_to_that_of_one_process(self, workers, rows):
        columns, labels = rows
        here, there = (
            fit(columns, labels, np.arange(ROWS), 7, 1, compute=place) for place in (LOCAL, workers)
        )
        np.testing.assert_array_equal(there.held_out, here.held_out)
        assert there.threshold == here.threshold and there.start == here.start
        assert there.booster.num_trees() == here.booster.num_trees()
        logits = [fitted.start.boosted(fitted.booster, columns) for fitted in (here, there)]
        assert np.corrcoef(logits)[0, 1] > 0.98

    def test_parameters_equal_those_of_one_process(self, workers, rows):
        here, there = (
            place.boost(PARAMETERS["frozen"], *rows, None, 3).model_to_string()
            for place in (LOCAL, workers)
        )
        changed = set(parameters_in(there)) - set(parameters_in(here))
        assert changed == {"[tree_learner: data]"}
        assert "127.0.0.1" not in there

    def test_worker_with_a_single_label(self, workers, rows):
        columns, _labels = rows
        labels = np.ones(ROWS, np.int64)
        labels[0] = 0  # the other worker has none
        booster = workers.boost(PARAMETERS["frozen"], columns, labels, None, 5)
        assert booster.predict(columns).mean() > 0.9

    def test_killed_worker_restarts_the_fit(self, mortal, rows):
        mortal.boost(SLOW, *rows, None, 3)  # the first fit takes longer
        killed = threading.Event()

        def kill_during_fit() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not any(mortal._client.processing().values()):
                time.sleep(0.02)
            time.sleep(0.3)  # the workers are connected, and far from done
            kill_one(mortal)
            killed.set()

        thread = threading.Thread(target=kill_during_fit)
        thread.start()
        booster = mortal.boost(SLOW, *rows, None, 1000)
        thread.join()
        assert killed.is_set()
        assert booster.num_trees() == 1000

    @pytest.mark.parametrize(
        "message", ["Socket recv error", "Connecting to rank 1 failed", "Binding port 12400 failed"]
    )
    def test_network_failure_is_retried(self, workers, rows, monkeypatch, message):
        boost, failed = ClusterCompute._boost, []

        def fail_once(*arguments):
            if not failed:
                failed.append(message)
                raise lightgbm.basic.LightGBMError(message)
            return boost(*arguments)

        monkeypatch.setattr(ClusterCompute, "_boost", fail_once)
        assert workers.boost(PARAMETERS["frozen"], *rows, None, 3).num_trees() == 3
        assert failed == [message]

    def test_invalid_parameters_are_named(self, workers, rows):
        columns, labels = rows
        with pytest.raises(
            ClusterUnavailable, match="LightGBM failed on the workers: Check failed"
        ):
            workers.boost(PARAMETERS["frozen"] | {"num_leaves": 1}, columns, labels, None, 3)


def is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


class TestCommand:
    @pytest.mark.parametrize(
        ("command", "main", "files"),
        [
            ("train", training, ["--data", LABELED]),
            ("train.features", features.main, ["--db", DATABASE]),
        ],
    )
    def test_unreachable_cluster_is_named(
        self, tmp_path, monkeypatch, capsys, command, main, files
    ):
        monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
        monkeypatch.chdir(tmp_path)
        write(compose(60, 7), tmp_path)
        monkeypatch.setattr("sys.argv", [command, *files, "--cluster", "tcp://127.0.0.1:1"])
        assert main() == 1
        message = f"{command}: no Dask scheduler answers at tcp://127.0.0.1:1"
        assert capsys.readouterr().err.splitlines()[-1].startswith(message)

    def test_missing_dask_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "train.compute.dask_training", None)
        with pytest.raises(ClusterUnavailable, match=r"-e '\.\[cluster\]'"), computing("local:2"):
            pytest.fail("computed")

    def test_only_cluster_modules_import_dask(self):
        for file in (ROOT / "train").rglob("*.py"):
            if not file.name.startswith(("cluster", "dask_")):
                source = file.read_text(encoding="utf-8")
                tree = ast.parse(source)
                tree.body = [one for one in tree.body if not is_for_types(one)]
                names = {package for package, _line in imports(tree)}
                assert not names & {"dask", "distributed"}, file
                assert "\nfrom train.compute.dask_" not in source, file  # only inside a function

    @pytest.mark.lab
    def test_model_on_a_cluster_has_the_same_metrics(self, tmp_path):
        write(compose(1500, 7), tmp_path)
        save_tiny_bert(tmp_path / "tiny")
        metrics = {}
        for report, option in {"here": [], "there": ["--cluster", "local:2"]}.items():
            done = python(
                *["-m", "train", "--data", LABELED, "--encoder", "tiny", "--db", DATABASE],
                *["--report", report, "--no-track", *option],
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stderr
            metrics[report] = json.loads((tmp_path / report / "metrics.json").read_text())
        here, there = metrics.values()
        for name in ("validation", "threshold", "rounds", "precision"):
            assert there[name] == here[name], name
        held_out = [(tmp_path / report / "held_out.csv").read_text() for report in metrics]
        assert held_out[0] == held_out[1]
        for name in ("average_precision", "f1"):
            assert there["test"][name] == pytest.approx(here["test"][name], abs=0.05)
        (tmp_path / "in.csv").write_text("msg\nhello\n")
        done = python("-m", "feedsieve", "score", "in.csv", "out.csv", cwd=tmp_path)
        assert f"1 scored by {there['classifier_tag']}" in done.stdout, done.stderr

    @pytest.mark.lab
    def test_features_on_a_cluster_are_the_same(self, tmp_path):
        write(compose(120, 7), tmp_path)
        save_tiny_bert(tmp_path / "tiny")
        ignored = shutil.ignore_patterns(".feast", "__pycache__")
        tables: list[dict[str, pd.DataFrame]] = []
        for option in ([], ["--cluster", "local:2"]):
            repository = tmp_path / f"repository-{len(tables)}"
            shutil.copytree(ROOT / "feature_repo", repository, ignore=ignored)
            done = python(
                *["-m", "train.features", "--db", DATABASE, "--repo", str(repository)],
                *["--encoder", "feedsieve-encoder:latest" if tables else "tiny", *option],
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stderr
            tables.append(rows_of(repository / ".feast"))
        for view in (EMBEDDING, HANDCRAFTED_VIEW):
            assert_frame_equal(tables[0][view], tables[1][view])
