"""Probes, pages and metrics say whether the message store can be read and written."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from postgres_server import PASSWORD, postgres
from serving import ROOT, serve, wait_for, wait_until_ready
from stores import chat, complete, locked, query

from feedsieve import metrics
from feedsieve.message import Message
from feedsieve.serving.store_health import Backlog, store_state
from feedsieve.serving.watching import OpenStore
from feedsieve.store import database as store_database
from feedsieve.store.store import MessageStore

__all__ = ["postgres"]

MODEL = "classifier:one"
BROWSER = {"Accept": "text/html"}
UNLIMITED = resource.RLIM_INFINITY, resource.RLIM_INFINITY


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "store.db"
    MessageStore.open(path).add(chat(20))
    return path


@pytest.fixture(scope="module")
def server(small_home, database, tmp_path_factory):
    environment = {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(database)}
    with serve(environment, tmp_path_factory.mktemp("server")) as running:
        wait_for(running, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        wait_until_ready(running)
        yield running


def worker(server) -> int:
    [process] = psutil.Process(server.process.pid).children()
    return process.pid


def metric(server, name: str) -> float:
    return server.metric(f"feedsieve_{name}")[""]


def post(server, identifier: str) -> int:
    message = {"source": "chat", "id": identifier, "text": f"text of {identifier}"}
    return server.client.post("/messages", json=message).status_code


def test_server_with_a_sound_store_is_ready(server):
    answer = server.client.get("/readyz")
    assert answer.json() == {"status": "ready"}
    assert "notice" not in server.client.get("/feed").json()
    assert metric(server, "store_readable") == metric(server, "store_writable") == 1
    assert metric(server, "backlog_texts") == 0
    assert 0 < time.time() - metric(server, "newest_message_timestamp_seconds") < 3600


def test_probe_of_a_server_is_in_its_document(server):
    answers = server.client.get("/openapi.json").json()["paths"]["/readyz"]["get"]["responses"]
    assert set(answers) == {"200", "503"}


def test_full_disk_is_degraded_until_there_is_room(server, database):
    before = server.client.get("/feed").json()["items"]
    resource.prlimit(worker(server), resource.RLIMIT_FSIZE, (4096, 4096 if os.getuid() else -1))
    try:
        assert post(server, "refused") == 503
        wait_for(server, "/readyz", lambda answer: answer.json()["status"] == "degraded")
        answer = server.client.get("/readyz")
        assert answer.status_code == 200
        assert "cannot be stored: " in answer.json()["detail"]
        assert str(database) not in answer.text
        wait_for(server, "/feed", lambda answer: "cannot be" in answer.json().get("notice", ""))
        assert server.client.get("/feed").json()["items"] == before
        page = server.client.get("/feed?limit=3", headers=BROWSER).text
        assert "New messages and scores cannot be stored" in page
        assert metric(server, "store_readable") == 1
        assert metric(server, "store_writable") == 0
    finally:
        resource.prlimit(worker(server), resource.RLIMIT_FSIZE, UNLIMITED)
    wait_for(server, "/readyz", lambda answer: answer.json() == {"status": "ready"}, within=30)
    assert post(server, "stored") == 200
    assert metric(server, "store_writable") == 1


def test_damaged_store_is_not_ready_until_a_backup_is_restored(server, database, tmp_path):
    """The server notices the file that `feedsieve db restore` puts in the damaged one's place."""
    copy = tmp_path / "copy.db"
    environment = os.environ | {"FEEDSIEVE_DB": str(database)}
    command = [sys.executable, "-m", "feedsieve", "db"]
    subprocess.run([*command, "backup", copy], cwd=ROOT, env=environment, check=True)
    query(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole = database.read_bytes()
    with database.open("r+b") as file:
        file.write(b"\xff" * len(whole))
    answer = None
    deadline = time.monotonic() + 30
    while (answer := server.client.get("/readyz")).status_code != 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "not a database" in answer.json()["detail"] or "malformed" in answer.json()["detail"]
    assert str(database) not in answer.text
    assert server.client.get("/livez").status_code == 200
    assert metric(server, "store_readable") == metric(server, "store_writable") == 0
    subprocess.run([*command, "restore", copy, "--force"], cwd=ROOT, env=environment, check=True)
    wait_until_ready(server)
    wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
    assert post(server, "after") == 200
    assert "is another file now; opening it again" in server.log.read_text()


def test_deleted_store_is_not_ready(tmp_path):
    store = MessageStore.open(tmp_path / "store.db")
    assert store_state(OpenStore(store)).status == "ready"
    (tmp_path / "store.db").unlink()
    state = store_state(OpenStore(store))
    assert (state.status, state.reason) == ("unavailable", "the file is gone")
    store.close()


def test_read_only_store_can_be_read(tmp_path):
    path = tmp_path / "store.db"
    MessageStore.open(path).add(chat(3))
    path.chmod(0o444)
    store = MessageStore.open(path, may_be_read_only=True)
    with pytest.raises(Exception, match="may not be written"):
        store.check_writing()
    assert store_state(OpenStore(store)).status == "degraded"
    assert store.count() == 3
    path.chmod(0o644)
    store.check_writing()
    assert store_state(OpenStore(store)).status == "ready"
    store.close()


def test_lost_postgresql_is_not_ready_and_names_no_secret(postgres):
    postgres.run("CREATE SCHEMA lost")
    store = MessageStore.open(f"{postgres.url('postgres')}?options=-csearch_path%3Dlost")
    assert store_state(OpenStore(store)).status == "ready"
    postgres.stop(signal.SIGQUIT)
    try:
        state = store_state(OpenStore(store))
    finally:
        postgres.start()
    assert (state.status, state.reason) == ("unavailable", "the database server cannot be reached")
    assert PASSWORD not in str(state)
    store.check_writing()
    assert store_state(OpenStore(store)).status == "ready"
    store.close()


def test_lock_of_another_writer_is_no_failure_of_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_database, "LOCK_SECONDS", 0.1)
    store = MessageStore.open(tmp_path / "store.db")
    with locked(tmp_path / "store.db"), pytest.raises(Exception, match="locked"):
        store.add(chat(1))
    assert store.write_failure is None
    store.close()


NUMBERS = itertools.count()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_backlog_counts_texts_without_a_score(kind, tmp_path, request):
    place = tmp_path / "store.db"
    if kind == "postgresql":
        server, name = request.getfixturevalue("postgres"), f"backlog{next(NUMBERS)}"
        server.run(f"CREATE SCHEMA {name}")
        place = f"{server.url('postgres')}?options=-csearch_path%3D{name}"
    store = MessageStore.open(place)
    assert store.newest() is None
    store.add([*chat(10), Message("twin", "text 1")])
    complete(store, MODEL)
    backlog = Backlog(store, MODEL)
    assert metrics.BACKLOG._value.get() == 10
    store.save_scores(MODEL, [(key, 0.5) for key, _text in store.unscored(MODEL, 4)])
    backlog.scored(4)
    assert metrics.BACKLOG._value.get() == store.count_unscored(MODEL) == 6
    assert abs(time.time() - store.newest().timestamp()) < 60
    store.close()
