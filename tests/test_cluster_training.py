"""Training on a cluster: what one process would have made of the same messages, within noise."""

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
from pandas.testing import assert_frame_equal
from test_cluster import two_workers
from test_house_rules import imports
from test_pipeline import ROOT, python
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from export.pipeline import export_encoder
from export.sources import load
from feedsieve.bulk import NoEngine
from feedsieve.encoder import Encoder
from train import cluster, cluster_training, compute, features
from train.__main__ import main as training
from train.classifier import PARAMETERS, fit
from train.cluster_training import ClusterCompute
from train.compute import computing
from train.embedding import traits_of
from train.feature_store import EMBEDDING, TRAITS

TEXTS = [f"сдаю квартиру {number}, {number} евро" for number in range(600)]
ROWS, COLUMNS = 1200, 24


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with two_workers() as client:
        yield client


@pytest.fixture
def workers(client) -> Iterator[ClusterCompute]:
    compute = ClusterCompute(client)
    yield compute
    compute.close()


@pytest.fixture
def mortal() -> Iterator[ClusterCompute]:
    """Workers of which some may die: now and then Dask does not start another in its place."""
    with two_workers() as client:
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
    """Columns, the first of them log-odds, some of them missing, and labels, few of them 1."""
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(ROWS, COLUMNS))
    labels = (columns[:, 0] + columns[:, 1] + rng.normal(size=ROWS) / 2 > 1.5).astype(np.int64)
    columns[rng.random(columns.shape) < 0.05] = np.nan
    columns[:, 0] = np.nan_to_num(columns[:, 0])
    return columns, labels


def rows_of(place: Path) -> dict[str, pd.DataFrame]:
    """Return what Feast's files have of messages, but for when it was computed."""
    return {
        view: pd.read_parquet(place / view).drop(columns="computed_at")
        for view in (EMBEDDING, TRAITS)
    }


def parameters_in(model: str) -> list[str]:
    """Return the lines of a model that say with which parameters it was fitted."""
    return [line for line in model.splitlines() if line.startswith("[")]


# Trees that take long enough for a worker to be killed among them
SLOW = PARAMETERS["frozen"] | {"num_leaves": 31, "learning_rate": 0.01}


def kill_one(workers: ClusterCompute) -> None:
    os.kill(min(workers._client.run(os.getpid).values()), signal.SIGKILL)


class TestEmbedding:
    @pytest.mark.parametrize(("precision", "difference"), [("int8", 0.0), ("fp32", 1e-6)])
    def test_as_one_process_embeds(self, workers, exported, precision, difference):
        folder = exported / precision
        here, told = Encoder(folder, threads=1), []
        there = workers.encoder(here, folder).encode(TEXTS, told.append)
        assert np.abs(there - here.encode(TEXTS)).max() <= difference
        assert sum(told) == len(TEXTS)

    def test_a_worker_that_is_killed_loses_nothing(self, mortal, exported):
        folder = exported / "int8"
        here, told = Encoder(folder, threads=1), []

        def kill(count: int) -> None:
            if not told:
                kill_one(mortal)
            told.append(count)

        there = mortal.encoder(here, folder).encode(TEXTS, kill)
        np.testing.assert_array_equal(there, here.encode(TEXTS))
        assert sum(told) == len(TEXTS)

    def test_the_folder_is_needed_no_more(self, workers, exported, tmp_path):
        folder = (exported / "int8").rename(tmp_path / "moved")
        encoder = workers.encoder(Encoder(folder, threads=1), folder)
        folder.rename(exported / "int8")
        assert encoder.encode(TEXTS[:1]).shape == (1, 32)

    def test_workers_forget_it(self, client, exported):
        compute = ClusterCompute(client)
        encoder = compute.encoder(Encoder(exported / "int8"), exported / "int8")
        compute.close()
        name = encoder._sent.name
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {False}


class TestFeatures:
    def test_traits(self, workers):
        texts = TEXTS * 4
        np.testing.assert_array_equal(traits_of(texts, workers), traits_of(texts))

    def test_what_a_step_raises_is_raised_here(self, workers):
        with pytest.raises(TypeError):
            workers.map(len, [[1], 2])

    def test_dying_again_and_again(self, mortal):
        with pytest.raises(NoEngine, match="workers died of it several times"):
            mortal.map(os._exit, [1])


class TestBoosting:
    @pytest.fixture(autouse=True)
    def _on_both(self, monkeypatch) -> None:
        monkeypatch.setattr(cluster_training, "FEWEST_ROWS", ROWS // 2)

    def test_as_one_process_fits(self, workers, rows):
        columns, labels = rows
        here, there = (
            fit(columns, labels, np.arange(ROWS), 7, 1, compute=place)
            for place in (compute.HERE, workers)
        )
        np.testing.assert_array_equal(there.held_out, here.held_out)
        assert there.threshold == here.threshold and there.start == here.start
        assert there.booster.num_trees() == here.booster.num_trees()
        logits = [fitted.start.boosted(fitted.booster, columns) for fitted in (here, there)]
        assert np.corrcoef(logits)[0, 1] > 0.98

    def test_with_the_same_parameters(self, workers, rows):
        here, there = (
            place.boost(PARAMETERS["frozen"], *rows, None, 3).model_to_string()
            for place in (compute.HERE, workers)
        )
        changed = set(parameters_in(there)) - set(parameters_in(here))
        assert changed == {"[tree_learner: data]"}
        assert "127.0.0.1" not in there

    def test_a_label_that_one_worker_has_not(self, workers, rows):
        columns, _labels = rows
        labels = np.ones(ROWS, np.int64)
        labels[0] = 0  # the other worker has none
        booster = workers.boost(PARAMETERS["frozen"], columns, labels, None, 5)
        assert booster.predict(columns).mean() > 0.9

    def test_a_worker_that_is_killed(self, mortal, rows):
        mortal.boost(SLOW, *rows, None, 3)  # what comes first takes longer
        killed = threading.Event()

        def kill_once_it_fits() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not any(mortal._client.processing().values()):
                time.sleep(0.02)
            time.sleep(0.3)  # the workers have found one another, and are far from done
            kill_one(mortal)
            killed.set()

        thread = threading.Thread(target=kill_once_it_fits)
        thread.start()
        booster = mortal.boost(SLOW, *rows, None, 2000)
        thread.join()
        assert killed.is_set()
        assert booster.num_trees() == 2000

    @pytest.mark.parametrize(
        "said", ["Socket recv error", "Connecting to rank 1 failed", "Binding port 12400 failed"]
    )
    def test_a_network_that_fails_once_is_tried_again(self, workers, rows, monkeypatch, said):
        fit_really, failed = ClusterCompute._boost, []

        def fail_once(*arguments):
            if not failed:
                failed.append(said)
                raise lightgbm.basic.LightGBMError(said)
            return fit_really(*arguments)

        monkeypatch.setattr(ClusterCompute, "_boost", fail_once)
        assert workers.boost(PARAMETERS["frozen"], *rows, None, 3).num_trees() == 3
        assert failed == [said]

    def test_one_that_cannot_be_fitted(self, workers, rows):
        columns, labels = rows
        with pytest.raises(NoEngine, match="LightGBM failed on the workers: Check failed"):
            workers.boost(PARAMETERS["frozen"] | {"num_leaves": 1}, columns, labels, None, 3)


class TestCommand:
    @pytest.mark.parametrize(
        ("command", "main", "files"),
        [
            ("train", training, ["--data", LABELED]),
            ("train.features", features.main, ["--db", DATABASE]),
        ],
    )
    def test_no_cluster(self, tmp_path, monkeypatch, capsys, command, main, files):
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
        monkeypatch.chdir(tmp_path)
        write(compose(60, 7), tmp_path)
        monkeypatch.setattr("sys.argv", [command, *files, "--cluster", "tcp://127.0.0.1:1"])
        assert main() == 1
        said = f"{command}: no Dask scheduler answers at tcp://127.0.0.1:1"
        assert capsys.readouterr().err.splitlines()[-1].startswith(said)

    def test_without_dask(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "train.cluster_training", None)
        with pytest.raises(NoEngine, match=r"-e '\.\[cluster\]'"), computing("local:2"):
            pytest.fail("computed")

    def test_without_the_option_nothing_imports_dask(self):
        for file in (ROOT / "train").rglob("*.py"):
            if not file.name.startswith("cluster"):
                tree = ast.parse(file.read_text(encoding="utf-8"))
                names = {package for package, _line in imports(tree)}
                assert not names & {"dask", "distributed"}, file
        source = (ROOT / "train" / "compute.py").read_text(encoding="utf-8")
        assert "\nfrom train.cluster" not in source  # but within a function

    @pytest.mark.lab
    def test_a_model_of_the_same_figures(self, tmp_path):
        write(compose(1500, 7), tmp_path)
        save_tiny_bert(tmp_path / "tiny")
        found = {}
        for report, option in {"here": [], "there": ["--cluster", "local:2"]}.items():
            done = python(
                *["-m", "train", "--data", LABELED, "--encoder", "tiny", "--db", DATABASE],
                *["--report", report, "--no-track", *option],
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stderr
            found[report] = json.loads((tmp_path / report / "metrics.json").read_text())
        here, there = found.values()
        for name in ("validation", "threshold", "rounds", "precision"):
            assert there[name] == here[name], name
        held_out = [(tmp_path / report / "held_out.csv").read_text() for report in found]
        assert held_out[0] == held_out[1]
        for name in ("average_precision", "f1"):
            assert there["test"][name] == pytest.approx(here["test"][name], abs=0.05)
        (tmp_path / "in.csv").write_text("msg\nhello\n")
        done = python("-m", "feedsieve", "score", "in.csv", "out.csv", cwd=tmp_path)
        assert f"1 scored by {there['classifier_tag']}" in done.stdout, done.stderr

    @pytest.mark.lab
    def test_features(self, tmp_path):
        write(compose(120, 7), tmp_path)
        save_tiny_bert(tmp_path / "tiny")
        ignored = shutil.ignore_patterns(".feast", "__pycache__")
        kept = []
        for option in ([], ["--cluster", "local:2"]):
            repository = tmp_path / f"repository-{len(kept)}"
            shutil.copytree(ROOT / "feature_repo", repository, ignore=ignored)
            done = python(
                *["-m", "train.features", "--db", DATABASE, "--repo", str(repository)],
                *["--encoder", "feedsieve-encoder:latest" if kept else "tiny", *option],
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stderr
            kept.append(rows_of(repository / ".feast"))
        for view in (EMBEDDING, TRAITS):
            assert_frame_equal(kept[0][view], kept[1][view])
