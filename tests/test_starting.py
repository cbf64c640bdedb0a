"""Start of the server: before it is ready, and when it cannot be."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from itertools import islice

import pytest
from serving import BENTOML, ROOT, free_port, serve, wait_for, wait_until_ready
from starlette.requests import Request

from feedsieve.api import routes
from feedsieve.message import Message
from feedsieve.serving.runtime import ModelNotReady, Runtime
from feedsieve.settings import Settings
from feedsieve.sources.readers import read_messages
from feedsieve.store.store import MessageStore


def in_feed(answer):
    return answer.status_code == 200 and answer.json()["items"]


def test_not_ready_until_the_model_is_loaded(small_environment, tmp_path):
    with serve(small_environment | {"FEEDSIEVE_DB": str(tmp_path / "new.db")}, tmp_path) as server:
        seen = wait_until_ready(server)
        assert set(seen) <= {0, 503, 200}
        assert 503 in seen
        answer = server.client.get("/feed")  # an empty store is an empty feed
        assert answer.status_code in (200, 503)
        wait_for(server, "/feed", lambda answer: answer.status_code == 200)
        assert server.client.get("/feed").json()["items"] == []
        page = server.client.get("/feed", headers={"Accept": "text/html"})
        assert "feedsieve import" in page.text


def test_only_this_machine_reaches_it_by_default(small_environment, tmp_path):
    with serve(small_environment, tmp_path, host=()) as server:
        wait_until_ready(server)
        port = server.client.base_url.port
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.2", port))  # open if it listens on all interfaces


def test_missing_model_ends_the_server(tmp_path):
    done = subprocess.run(
        [BENTOML, "serve", "service:Feedsieve"],
        cwd=ROOT,
        env={"BENTOML_HOME": str(tmp_path), "PATH": "", "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "make train" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def serve_until_it_ends(environment, home) -> subprocess.CompletedProcess[str]:
    """Run a server that ends by itself; return its output."""
    return subprocess.run(
        [BENTOML, "serve", "service:Feedsieve", "--host", "127.0.0.1", "--port", str(free_port())],
        cwd=ROOT,
        env=os.environ | environment | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_damaged_model_ends_the_server(small_environment, small_home, tmp_path):
    home = tmp_path / "bentoml"
    shutil.copytree(small_home, home)
    [damaged] = home.glob("models/feedsieve-encoder/*/model.onnx")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = serve_until_it_ends(small_environment, home)
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
    assert "cannot be loaded, it is damaged" in line
    assert "Traceback" not in done.stdout


def test_tampered_reference_outputs_end_the_server(small_environment, small_home, tmp_path):
    home = tmp_path / "bentoml"
    shutil.copytree(small_home, home)
    [file] = home.glob("models/feedsieve-encoder/*/reference.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"expected": content["expected"][::-1]}))
    done = serve_until_it_ends(small_environment, home)
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
    assert "lowest cosine" in line and "at least 0.999 is required" in line
    assert "Traceback" not in done.stdout


def test_store_is_opened_once_it_can_be(small_environment, tmp_path):
    folder = tmp_path / "not-a-file"
    folder.mkdir()
    with serve(small_environment | {"FEEDSIEVE_DB": str(folder)}, tmp_path) as server:
        wait_for(server, "/readyz", lambda answer: "a folder, not a file" in answer.text)
        answer = server.client.get("/readyz")
        assert answer.status_code == 503
        assert str(folder) not in answer.text
        assert server.client.get("/livez").status_code == 200
        answer = server.client.get("/feed")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert server.client.post("/score", json={"texts": ["text"]}).status_code == 200
        assert "a folder, not a file" in server.log.read_text()
        folder.rmdir()  # the server retries
        wait_until_ready(server)
        wait_for(server, "/feed", lambda answer: answer.status_code == 200)


def test_replaced_store_is_opened_again(small_environment, tmp_path):
    served, other = tmp_path / "served.db", tmp_path / "other.db"
    for path, text in {served: "Сдаётся квартира", other: "Сдаётся другая квартира"}.items():
        store = MessageStore.open(path)
        store.add([Message("1", text)])
        store.close()
    with serve(small_environment | {"FEEDSIEVE_DB": str(served)}, tmp_path) as server:
        wait_for(server, "/feed", in_feed)
        other.replace(served)
        wait_for(server, "/feed", lambda answer: in_feed(answer) and "другая" in answer.text)
        assert "served.db is another file now" in server.log.read_text()


def test_old_models_feed_is_shown_until_the_new_one_is_complete(environment, sample, tmp_path):
    """The old model has scored every message, the served one none."""
    database = tmp_path / "messages.db"
    old = "feedsieve-classifier:old"
    store = MessageStore.open(database)
    store.add(islice(read_messages(sample / "messages.db"), 600))
    store.start_model(old, 0.5)
    keys = [key for key, _ in store.unscored(old, 600)]
    store.save_scores(old, [(key, 0.75) for key in keys])
    store.mark_complete(old)
    with serve(environment | {"FEEDSIEVE_DB": str(database)}, tmp_path) as server:
        seen = []

        def replaced(answer):
            if answer.status_code == 200:
                seen.append(answer.json())
            return seen and seen[-1]["model"] != old

        wait_for(server, "/feed?limit=100", replaced)
    assert len(seen) > 1
    assert {answer["model"] for answer in seen[:-1]} == {old}
    assert all(len(answer["items"]) == 100 for answer in seen)  # every page is full
    assert {item["label"] for item in seen[0]["items"]} == {"positive"}
    assert 0.75 not in {item["score"] for item in seen[-1]["items"]}


def test_new_messages_are_scored_within_seconds(small_environment, sample, tmp_path):
    """Also after a long backfill."""
    database = tmp_path / "messages.db"
    MessageStore.open(database).add(islice(read_messages(sample / "messages.db"), 600))
    source = tmp_path / "more.csv"
    source.write_text("msg_id,msg\nnew,Сдаётся квартира в Лимассоле\nother,Всем привет\n")
    own = small_environment | {"FEEDSIEVE_DB": str(database)}

    def rows(statement):
        with sqlite3.connect(database) as connection:
            return connection.execute(statement).fetchall()

    with serve(own, tmp_path) as server:
        wait_for(server, "/livez", lambda _: rows("SELECT 1 FROM models WHERE completed_at > ''"))
        subprocess.run(
            [BENTOML.with_name("feedsieve"), "import", source], env=own, check=True, cwd=tmp_path
        )
        answer = server.client.get("/messages/new").json()  # scored on demand
        scored = "SELECT score FROM messages JOIN scores USING (fingerprint) WHERE id = "
        wait_for(server, "/livez", lambda _: rows(f"{scored} 'other'"), within=30)
        assert rows(f"{scored} 'new'") == [(answer["score"],)]  # saved, not computed again


def test_requests_do_not_wait_for_the_backfill(environment, sample, tmp_path):
    """Requests are answered while most messages have no score."""
    database = tmp_path / "messages.db"
    shutil.copyfile(sample / "messages.db", database)
    with serve(environment | {"FEEDSIEVE_DB": str(database)}, tmp_path) as server:
        wait_for(server, "/feed", in_feed)  # the backfill runs
        for number in range(5):
            answer = server.client.post("/score", json={"texts": [f"text {number}"]})
            assert answer.status_code == 200
            assert in_feed(server.client.get("/feed"))
        with sqlite3.connect(database) as connection:
            [[scored]] = connection.execute("SELECT count(*) FROM scores")
            [[texts]] = connection.execute("SELECT count(DISTINCT fingerprint) FROM messages")
        assert 0 < scored < texts


def test_feed_names_the_model_that_loads_and_not_the_store(tmp_path, monkeypatch):
    """The store is opened after the model is loaded."""
    monkeypatch.setattr(routes, "runtime", Runtime(Settings(db=str(tmp_path / "new.db"))))
    with pytest.raises(ModelNotReady, match="the model is being loaded"):
        routes._render_feed(Request({"type": "http"}), 10, None)
