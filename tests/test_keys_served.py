"""API keys, request ids and logs of the real server."""

import json
import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from urllib.parse import quote

import pytest
from serving import serve, wait_for
from test_bad_input import assert_problem
from test_service import BROWSER

from feedsieve.message import Message
from feedsieve.store.store import MessageStore

TEXT = "тайный текст"
PHONE = "35799123456"
MESSAGE = {"source": "chat", "id": "1", "text": "Отдам котёнка"}
ORIGIN = "https://reader.example"


def small_store(folder):
    store = MessageStore.open(folder / "messages.db")
    store.add(Message(str(number), f"Отдам котёнка, {number}") for number in range(3))
    return store


@pytest.fixture(scope="module")
def opened(small_home, tmp_path_factory):
    """A server with a store without keys, whose settings are the defaults."""
    folder = tmp_path_factory.mktemp("open")
    small_store(folder).close()
    environment = {
        "BENTOML_HOME": str(small_home),
        "FEEDSIEVE_DB": str(folder / "messages.db"),
        "FEEDSIEVE_CORS_ORIGINS": ORIGIN,
    }
    with serve(environment, folder) as server:
        wait_for(server, "/feed", lambda answer: answer.is_success)
        server.environment = environment
        yield server


@pytest.fixture(scope="module")
def closed(small_home, tmp_path_factory):
    """A server that is closed to those without a key, and logs JSON."""
    folder = tmp_path_factory.mktemp("closed")
    store = small_store(folder)
    keys = {
        name: store.add_key(name, scopes)
        for name, scopes in {"all": ["read", "score", "write"], "reader": ["read"]}.items()
    }
    store.close()
    own = {
        "FEEDSIEVE_READING_NEEDS_KEY": "1",
        "FEEDSIEVE_SCORING_NEEDS_KEY": "1",
        "FEEDSIEVE_LOG_FORMAT": "json",
    }
    environment = {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(folder / "messages.db")}
    with serve(environment | own, folder) as server:
        server.keys = keys
        server.client.headers["X-API-Key"] = keys["all"]
        wait_for(server, "/feed", lambda answer: answer.is_success)
        del server.client.headers["X-API-Key"]
        yield server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def keys_command(server, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "feedsieve", "keys", *arguments],
        env=os.environ | server.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def logged(server):
    time.sleep(0.5)  # the access log is written five times a second
    return server.log.read_text()


def is_known(server, key):
    return server.client.get("/feed", headers=bearer(key)).is_success


def everything(server):
    """Return the method and path of every route in OpenAPI, with a text as the identifier."""
    key = getattr(server, "keys", {}).get("all", "")
    paths = server.client.get("/openapi.json", headers={"X-API-Key": key}).json()["paths"]
    assert "/messages/{identifier}" in paths
    return [
        (method.upper(), path.replace("{identifier}", quote(f"{TEXT} {PHONE}")))
        for path, methods in paths.items()
        for method in methods
    ]


class TestOpened:
    def test_first_key_closes_writing_while_the_server_runs(self, opened):
        post = {"url": "/messages", "json": MESSAGE}
        assert opened.client.post(**post).status_code == 200
        key = keys_command(opened, "add", "bot")
        wait_for(opened, "/feed", lambda _: opened.client.post(**post).status_code == 401, 10)
        assert_problem(opened.client.delete("/messages/1"), 401, "scope write")
        assert opened.client.post(**post, headers=bearer(key)).status_code == 200
        assert opened.client.get("/feed").status_code == 200
        assert opened.client.post("/score", json={"texts": ["a"]}).status_code == 200
        keys_command(opened, "add", "next")
        keys_command(opened, "revoke", "bot")
        own = post | {"headers": bearer(key)}
        wait_for(opened, "/feed", lambda _: opened.client.post(**own).status_code == 401, 10)
        used = json.loads(keys_command(opened, "list", "--json"))[0]["last_used_at"]
        assert used
        log = logged(opened)
        assert "writing: anyone who reaches the server; `feedsieve keys add NAME`" in log
        assert "writing: 1 key\n" in log

    def test_refusal_is_for_listed_origins_too(self, opened):
        answer = opened.client.get("/feed", headers=bearer("fs_1") | {"Origin": ORIGIN})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
        asked = {"Access-Control-Request-Method": "POST", "Origin": ORIGIN}
        preflight = opened.client.options(
            "/messages", headers=asked | {"Access-Control-Request-Headers": "authorization"}
        )
        assert preflight.status_code == 200
        assert preflight.headers["x-request-id"]

    def test_start_is_logged_once(self, opened):
        log = logged(opened)
        port = opened.client.base_url.port
        assert log.count(f"listening on 127.0.0.1:{port}: only programs of this machine") == 1
        assert log.count("reading: anyone who reaches the server\n") == 1
        assert log.count("scoring: anyone who reaches the server\n") == 1
        assert log.count("writing: anyone") == 1

    def test_openapi_documents_keys(self, opened):
        document = opened.client.get("/openapi.json").json()
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header", "basic"}
        for path, method in (("/messages", "post"), ("/messages/{identifier}", "delete")):
            operation = document["paths"][path][method]
            assert {"401", "403", "429", "503"} <= set(operation["responses"])
            assert operation["security"] == [{}, {"bearer": []}, {"header": []}]
        reading = document["paths"]["/feed"]["get"]
        assert {"basic": []} in reading["security"] and {} in reading["security"]
        assert "403" not in reading["responses"]
        assert "security" not in document["paths"]["/livez"]["get"]


class TestClosed:
    @pytest.mark.parametrize(
        "path",
        ["/feed", "/", "/messages", "/messages/1", "/version", "/metrics", "/docs", "/nothing"]
        + ["/openapi.json", "/docs.json", "/schema.json", "/static_content/swagger-ui.css"],
    )
    def test_nothing_is_read_without_a_key(self, closed, path):
        assert_problem(closed.client.get(path), 401, "scope read")
        answer = closed.client.get(path, headers=bearer(closed.keys["reader"]))
        assert answer.status_code in (200, 307, 404)

    def test_health_is_open(self, closed):
        for path in ("/livez", "/readyz"):
            assert closed.client.get(path).status_code == 200

    def test_browser_reads_with_the_key_as_its_password(self, closed):
        asked = closed.client.get("/feed", headers=BROWSER)
        assert asked.status_code == 401
        assert asked.headers["www-authenticate"].startswith("Basic ")
        pair = b64encode(f"anybody:{closed.keys['reader']}".encode()).decode()
        page = closed.client.get("/feed", headers=BROWSER | {"Authorization": f"Basic {pair}"})
        assert page.status_code == 200 and "<html" in page.text

    def test_scoring_and_writing_need_their_scopes(self, closed):
        texts = {"texts": ["a"]}
        for path, body, scope in (("/score", texts, "score"), ("/messages", MESSAGE, "write")):
            assert_problem(closed.client.post(path, json=body), 401, f"scope {scope}")
            reader = bearer(closed.keys["reader"])
            assert_problem(closed.client.post(path, json=body, headers=reader), 403, scope)
            key = bearer(closed.keys["all"])
            assert closed.client.post(path, json=body, headers=key).status_code == 200

    def test_openapi_documents_what_is_closed(self, closed):
        headers = bearer(closed.keys["reader"])
        document = closed.client.get("/openapi.json", headers=headers).json()
        for path, method in (("/feed", "get"), ("/score", "post"), ("/metrics", "get")):
            operation = document["paths"][path][method]
            assert {} not in operation["security"]
            assert {"401", "403", "429", "503"} <= set(operation["responses"])

    def test_start_is_logged_as_json(self, closed):
        messages = [json.loads(line)["message"] for line in worker_lines(closed)]
        for line in ("reading: 2 keys", "scoring: 1 key", "writing: 1 key"):
            assert messages.count(line) == 1


def worker_lines(server):
    """Return the lines of the log but those of access."""
    return [line for line in logged(server).splitlines() if "feedsieve.access" not in line]


class TestRequestIds:
    @pytest.mark.parametrize(
        ("method", "path", "key", "status"),
        [
            ("GET", "/feed", None, 200),
            ("GET", "/livez", None, 200),
            ("GET", "/messages/none", None, 404),
            ("GET", "/nothing", None, 404),
            ("GET", "/feed?limit=x", None, 422),
            ("GET", "/feed", "fs_1", 401),
            ("POST", "/score", None, 415),
        ],
    )
    def test_every_answer_and_its_line_have_the_id(self, opened, method, path, key, status):
        own = f"own-{time.monotonic_ns()}"
        headers = bearer(key) if key else {}
        answer = opened.client.request(method, path, headers=headers | {"X-Request-ID": own})
        assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, [own])
        made = opened.client.request(method, path, headers=headers).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        log = logged(opened)
        assert re.search(rf"\[access\] {method} \S+ {status} .* request={own}\n", log)
        assert f"request={made}\n" in log


class TestLogs:
    @pytest.mark.parametrize("which", ["opened", "closed"])
    def test_nothing_that_requests_send_is_logged(self, request, which):
        server = request.getfixturevalue(which)
        secret = f"{TEXT} {PHONE}"
        key = server.keys["all"] if which == "closed" else keys_command(server, "add", "all")
        wait_for(server, "/livez", lambda _: is_known(server, key), 10)
        before = len(logged(server))
        bodies = (
            {"source": secret, "id": secret, "text": secret, "sender": secret},
            {"texts": [secret]},
            {"texts": secret},
            secret,
        )
        routes = [*everything(server), ("GET", f"/{quote(secret)}"), ("PUT", f"/{PHONE}/x")]
        sent = 0
        for method, path in routes:
            for given in (key, secret, "fs_" + "7" * 64):
                for body in bodies if method not in ("GET", "HEAD") else bodies[:1]:
                    server.client.request(
                        method,
                        f"{path}?q={quote(secret)}&cursor={quote(secret)}&key={given}",
                        json=body,
                        headers={
                            "X-API-Key": given.encode(),
                            "User-Agent": PHONE,
                            "Referer": f"https://a.example/{PHONE}",
                            "X-Forwarded-Prefix": f"/{PHONE}",
                            "X-Request-ID": secret.encode(),
                        },
                    )
                    sent += 1
        log = logged(server)[before:]
        assert len(log.splitlines()) >= sent
        for kept in (TEXT, quote(TEXT), "\\u0442\\u0430", PHONE, key[3:], "7" * 64):
            assert kept not in log
        assert ('"key": "all"' if which == "closed" else "key=all") in log
        if which == "closed":
            assert all(json.loads(line) for line in log.splitlines())
