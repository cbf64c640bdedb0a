import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import bentoml
import pandas as pd
import pytest
from filelock import FileLock
from serving import ROOT, Server, serve, wait_for, wait_until_ready

from feedsieve.message import Message
from feedsieve.store.store import MessageStore
from train.data.labelled import read_labeled

# Tests have settings of their own, whatever those of the shell are.
_KEPT = ("FEEDSIEVE_CACHE", "FEEDSIEVE_CORPUS", "FEEDSIEVE_THREADS", "FEEDSIEVE_TEST_")
for name in [name for name in os.environ if name.startswith(("FEEDSIEVE_", "FEAST_"))]:
    if not name.startswith(_KEPT):
        del os.environ[name]


CORPUS = Path(os.environ.get("FEEDSIEVE_CORPUS") or ROOT.parent / "shared" / "corpus")
CORPUS /= "labeled_messages.csv"
LABELS = 1200  # of the sample corpus, for the model that most tests share


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with one file that needs the shared model; run the others that do last.

    The process that trains it then does so while the others test something else.
    """
    users = {item.path: 1 for item in items if "trained" in getattr(item, "fixturenames", ())}
    if users:
        users[next(iter(users))] = -1
    items.sort(key=lambda item: users.get(item.path, 0))


def pytest_collection_finish() -> None:
    """Leave what all tests import out of garbage collection.

    Transformers' trainer collects after each training, and would look at every library each time.
    """
    gc.freeze()


@contextmanager
def tracked_below(folder: Path) -> Iterator[Path]:
    file = folder / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
        yield file


@pytest.fixture(scope="session", autouse=True)
def tracked_once(tmp_path_factory) -> Iterator[Path]:
    """The file that what all tests share is tracked in, not that of whoever runs them."""
    with tracked_below(tmp_path_factory.mktemp("mlflow_shared")) as file:
        yield file


@pytest.fixture(scope="module", autouse=True)
def tracked(tmp_path_factory) -> Iterator[Path]:
    """The file that a file of tests tracks in: its champion is not served in the others'."""
    with tracked_below(tmp_path_factory.mktemp("mlflow")) as file:
        yield file


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A folder with the sample corpus."""
    folder = tmp_path_factory.mktemp("sample")
    subprocess.run([sys.executable, "-m", "data.generate", "--out", folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory) -> Iterator[Path]:
    """The BENTOML_HOME of this process, from its first test on."""
    home = tmp_path_factory.mktemp("bentoml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        bentoml.models.list()  # BentoML looks once where it is, and some tests set another
        yield home


@pytest.fixture(scope="session")
def trained(sample, tmp_path_factory, worker_id) -> Path:
    """A BENTOML_HOME with a model of a part of the sample corpus, as `make train` makes one.

    It has no other models, unlike that of the process. Its encoder has a quarter of the layers:
    that saves minutes, and servers start sooner. Processes that test beside each
    other train once, and have a copy each. So do later runs if FEEDSIEVE_TEST_HOME names a folder:
    for work on anything but training and models.
    """
    own, base = tmp_path_factory.mktemp("trained"), tmp_path_factory.getbasetemp()
    kept = os.environ.get("FEEDSIEVE_TEST_HOME")
    shared = Path(kept or (base if worker_id == "master" else base.parent) / "trained-once")
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            _train(sample, own)
            shutil.copytree(own, shared)
            return own
    shutil.copytree(shared, own, dirs_exist_ok=True)
    return own


@pytest.fixture(scope="session")
def trained_tag(trained, home) -> str:
    """The tag of that classifier, in the model store of this process; others may be newer there."""
    _copy_models(trained, home)
    metrics = json.loads((trained / "report" / "metrics.json").read_text(encoding="utf-8"))
    return str(metrics["classifier_tag"])


def _train(sample: Path, home: Path) -> None:
    labels, encoder = home / "labels.csv", home / "encoder"
    pd.read_csv(sample / "labeled_messages.csv", dtype=str)[:LABELS].to_csv(labels, index=False)
    train = ["-m", "train", "--data", labels, "--encoder", encoder, "--report", home / "report"]
    environment = os.environ | {"BENTOML_HOME": str(home)}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}"
    for command in (["-m", "wheel_layers", encoder], train):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    shutil.rmtree(encoder)


def _copy_models(source: Path, target: Path) -> None:
    """Copy the models of one BENTOML_HOME to another, and leave the newest there what it is."""
    for folder in source.glob("models/*/*/"):
        shutil.copytree(folder, target / folder.relative_to(source))


@pytest.fixture(scope="session")
def small_home(tmp_path_factory) -> Path:
    """A BENTOML_HOME with the tiny pair of models of tests/earlier, which loads in a second."""
    home = tmp_path_factory.mktemp("small")
    with tarfile.open(ROOT / "tests" / "earlier" / "feedsieve.bento") as bento:
        models = [one for one in bento.getmembers() if "models" in Path(one.name).parts]
        bento.extractall(home, models, filter="data")
    return home


@pytest.fixture(scope="session")
def small_pair(small_home, home) -> str:
    """The tag of the tiny classifier, in the model store of this process; not the newest there."""
    _copy_models(small_home, home)
    [classifier] = small_home.glob("models/feedsieve-classifier/*/")
    return f"{classifier.parent.name}:{classifier.name}"


@pytest.fixture(scope="session")
def environment(trained, sample, tmp_path_factory) -> dict[str, str]:
    """Settings of the server: the trained model, and a store of a thousand sample messages.

    All 4,000 would keep a core busy for minutes where the CPU is slow.
    """
    database = tmp_path_factory.mktemp("store") / "messages.db"
    shutil.copyfile(sample / "messages.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM raw_rent_messages WHERE rowid > 1000")
    return {"BENTOML_HOME": str(trained), "FEEDSIEVE_DB": str(database)}


@pytest.fixture(scope="session")
def server(environment, tmp_path_factory) -> Iterator[Server]:
    """The server on the sample corpus, ready, with messages in its feed."""
    with serve(environment, tmp_path_factory.mktemp("server")) as running:
        wait_until_ready(running)
        wait_for(running, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield running


@pytest.fixture(scope="session")
def corpus() -> pd.DataFrame:
    """The real labelled messages."""
    if not CORPUS.exists():
        pytest.skip(f"no labelled corpus at {CORPUS}; FEEDSIEVE_CORPUS names its folder")
    return read_labeled(CORPUS)


@pytest.fixture(scope="session")
def real_messages() -> list[str]:
    """The texts of 300 real messages (FEEDSIEVE_TEST_TEXTS), or none where there is no corpus."""
    count = int(os.environ.get("FEEDSIEVE_TEST_TEXTS", "300"))
    return read_labeled(CORPUS)["msg"].tolist()[:count] if CORPUS.exists() else []


@pytest.fixture(scope="session")
def small_environment(small_home, tmp_path_factory) -> dict[str, str]:
    """Settings of a server with the tiny pair of models and 30 messages."""
    database = tmp_path_factory.mktemp("small_store") / "messages.db"
    messages = (Message(str(number), f"Отдам котёнка, {number}") for number in range(30))
    MessageStore.open(str(database)).add(messages)
    return {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(database)}


@pytest.fixture(scope="session")
def small_server(small_environment, tmp_path_factory) -> Iterator[Server]:
    """A server that starts in seconds, ready, with messages in its feed."""
    with serve(small_environment, tmp_path_factory.mktemp("small_server")) as running:
        wait_for(running, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield running
