"""Real MLflow stores in files and in a server, and trainings that are tracked in them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from serving import ROOT, free_port, stop

from data.generate import LABELED

START_WITHIN = 300.0  # seconds; about ten on an idle machine
_SET_BY_CI = {"CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A database with MLflow's tables, which take seconds to create."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(empty, tmp_path, monkeypatch) -> MlflowClient:
    """An empty MLflow store, set as the tracking URI."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


@contextmanager
def mlflow_server(database: Path, home: Path) -> Iterator[str]:
    """Run a server with a copy of `database` that stores artifacts; yield its address."""
    shutil.copyfile(database, home / "mlflow.db")
    url = f"http://127.0.0.1:{(port := free_port())}"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1"]
            + ["--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
            + ["--artifacts-destination", "artifacts"],
            cwd=home,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_WITHIN
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < deadline, (
                home / "log"
            ).read_text()
            time.sleep(0.2)
        yield url
    finally:
        stop(process)


def environment(folder: Path, uri: str) -> dict[str, str]:
    """Return the environment of commands on a machine with its own stores in `folder`."""
    ours = {
        "MLFLOW_TRACKING_URI": uri,
        "BENTOML_HOME": str(folder / "bentoml"),
        "FEEDSIEVE_CACHE": str(folder / "cache"),
        "FEEDSIEVE_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    others = {name: value for name, value in os.environ.items() if name not in _SET_BY_CI}
    return others | ours


def run(folder: Path, uri: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run `python COMMAND` on the machine in `folder`."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment(folder, uri),
        capture_output=True,
        text=True,
        timeout=1800,
    )


def train(folder: Path, uri: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Train in `folder`, which has the data and a tiny encoder."""
    options = ["--data", LABELED, "--encoder", "private/tiny", *arguments]
    return run(folder, uri, "-m", "train", *options)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=10).is_success
    except httpx.TransportError:
        return False
