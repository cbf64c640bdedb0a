"""API keys in requests, in process: real keys in a real store, before an application that says OK.

tests/test_keys_served.py has the real server.
"""

import asyncio
import shutil
import time
from base64 import b64encode
from types import SimpleNamespace

import httpx
import pytest
from starlette.responses import PlainTextResponse
from test_bad_input import assert_problem
from test_service import BROWSER

from feedsieve.api.authentication import AuthenticationMiddleware
from feedsieve.api.request_log import RequestLogMiddleware
from feedsieve.api.root_path import RootPathMiddleware
from feedsieve.logs import request_context
from feedsieve.message import StoreUnavailable
from feedsieve.serving import key_cache
from feedsieve.serving.key_cache import KeyCache
from feedsieve.settings import Settings
from feedsieve.store.keys import new_key
from feedsieve.store.store import MessageStore

WRITES = [
    ("POST", "/messages"),
    ("PUT", "/messages/1/label"),
    ("DELETE", "/messages/1"),
    ("DELETE", "/messages/1/label"),
    ("PATCH", "/messages/1"),
    ("POST", "/anything/new"),
    ("POST", "/livez"),
    ("POST", "/scores"),
]
READS = [
    ("GET", "/feed"),
    ("HEAD", "/feed"),
    ("GET", "/"),
    ("GET", "/messages/1"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/score"),
    ("OPTIONS", "/feed"),
    ("GET", "/anything/new"),
    ("GET", "/livez/"),
]


class Server:
    """The middleware and a store; `names` are those of the keys that requests were sent with."""

    def __init__(self, store: MessageStore, **own: bool) -> None:
        settings = Settings(**own)
        self.store = store
        self.holder = SimpleNamespace(store=store)
        self.cache = KeyCache(settings, self.holder)
        self.names: list[str | None] = []
        checked = AuthenticationMiddleware(self.answer, self.cache, settings)
        self.app = RootPathMiddleware(RequestLogMiddleware(checked, None), "")

    async def answer(self, scope, receive, send):
        self.names.append(request_context.get().key)
        await PlainTextResponse("OK")(scope, receive, send)

    def add(self, name="bot", *scopes, rate=None):
        key = self.store.add_key(name, scopes or ("write",), rate)
        self.cache.read(self.store)
        return key

    def send(self, method="POST", path="/messages", **headers):
        async def request():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, headers=named)

        return asyncio.run(request())


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def basic(key):
    return {"Authorization": f"Basic {b64encode(f'reader:{key}'.encode()).decode()}"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The file of an empty store, as making one takes most of a test's time."""
    file = tmp_path_factory.mktemp("empty") / "store.db"
    MessageStore.open(file).close()
    return file


@pytest.fixture
def store(empty, tmp_path):
    store = MessageStore.open(shutil.copyfile(empty, tmp_path / "store.db"))
    yield store
    store.close()


@pytest.fixture
def server(store):
    server = Server(store)
    server.cache.read(store)
    return server


@pytest.fixture
def closed(store):
    server = Server(store, reading_needs_key=True, scoring_needs_key=True)
    server.cache.read(store)
    return server


def refused(answer, status, detail):
    assert_problem(answer, status, detail)
    return answer.headers.get("www-authenticate")


class TestWriting:
    @pytest.mark.parametrize(("method", "path"), WRITES)
    def test_it_is_open_without_keys_and_closed_with_the_first(self, server, method, path):
        assert server.send(method, path).status_code == 200
        key = server.add()
        challenge = refused(server.send(method, path), 401, "scope write")
        assert challenge == 'Bearer realm="feedsieve"'
        assert server.send(method, path, **bearer(key)).status_code == 200
        assert server.send(method, path, X_API_Key=key).status_code == 200
        assert server.names == [None, "bot", "bot"]

    @pytest.mark.parametrize("name", ["unknown", "short", "", "cut", "hash", "upper"])
    def test_other_keys_are_refused(self, server, name):
        key = server.add()
        [stored] = server.store.api_keys()
        given = {
            "unknown": new_key(),
            "short": "fs_1",
            "": "",
            "cut": key[:-1],
            "hash": f"fs_{stored.hash}",
            "upper": key.upper(),
        }[name]
        for headers in (bearer(given), {"X_API_Key": given}):
            challenge = refused(server.send(**headers), 401, "not valid")
            assert challenge == 'Bearer realm="feedsieve", error="invalid_token"'

    @pytest.mark.parametrize(
        "authorization", ["Bearer", "Digest x", "Basic !", "Basic Og==", "é", "Bearer é"]
    )
    def test_other_credentials_are_refused(self, server, authorization):
        server.add()
        answer = server.send(Authorization=authorization.encode("latin-1"))
        assert answer.status_code == 401

    def test_key_without_the_scope_is_forbidden(self, server):
        key = server.add("reader", "read", "score")
        refused(server.send(**bearer(key)), 403, "lacks the scope write")
        admin = server.add("admin", "admin")
        assert server.send(**bearer(admin)).status_code == 200

    def test_basic_does_not_write(self, server):
        """A browser would send it with what pages of other sites ask it to."""
        key = server.add()
        assert server.send(**basic(key)).status_code == 401

    def test_several_keys_are_valid_until_revoked(self, server):
        old, new = server.add("old"), server.add("new")
        assert [server.send(**bearer(key)).status_code for key in (old, new)] == [200, 200]
        server.store.revoke_key("old")
        server.cache.read(server.store)
        assert [server.send(**bearer(key)).status_code for key in (old, new)] == [401, 200]

    def test_last_key_that_is_revoked_is_refused_although_writing_is_open(self, server):
        key = server.add()
        server.store.revoke_key("bot")
        server.cache.read(server.store)
        assert server.send().status_code == 200
        assert server.send(**bearer(key)).status_code == 401

    def test_body_is_not_read_before(self, server):
        server.add()

        async def receive():
            raise AssertionError("the body was read")

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/messages", "headers": []}
        asyncio.run(server.app(scope, receive, send))
        assert sent[0]["status"] == 401

    def test_path_under_a_prefix_is_the_same(self, server):
        server.add()
        for prefix in ("/chat", "/livez", "/score", "/messages"):
            for path in ("/messages", f"{prefix}/messages"):
                assert server.send("POST", path, X_Forwarded_Prefix=prefix).status_code == 401
            assert server.send("POST", "/score", X_Forwarded_Prefix=prefix).status_code == 200


class TestReading:
    @pytest.mark.parametrize(("method", "path"), READS)
    def test_it_is_open_by_default(self, server, method, path):
        server.add()
        assert server.send(method, path).status_code == 200

    @pytest.mark.parametrize(("method", "path"), READS)
    def test_setting_closes_it(self, closed, method, path):
        answer = closed.send(method, path)  # no key exists, and closed is closed
        assert answer.status_code == 401
        key = closed.add("reader", "read")
        for headers in (bearer(key), {"X_API_Key": key}, basic(key)):
            assert closed.send(method, path, **headers).status_code == 200
        writer = closed.add("writer", "write")
        assert closed.send(method, path, **bearer(writer)).status_code == 403

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
    def test_health_is_always_open(self, closed, path):
        assert closed.send("GET", path).status_code == 200
        assert closed.send("GET", path, **bearer("fs_1")).status_code == 200
        assert closed.send("HEAD", path).status_code == 200

    def test_browsers_are_asked_for_a_password(self, closed):
        answer = closed.send("GET", "/feed", **BROWSER)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="feedsieve", charset="UTF-8"'
        assert answer.headers["content-type"].startswith("text/html")
        assert "Basic" not in closed.send("GET", "/feed").headers["www-authenticate"]

    def test_credentials_for_a_proxy_are_ignored(self, server):
        server.add()
        for authorization in ("Basic dXNlcjpwYXNz", "Bearer eyJhbGciOi", "Negotiate YII="):
            assert server.send("GET", "/feed", Authorization=authorization).status_code == 200

    def test_wrong_key_of_ours_is_refused_where_none_is_needed(self, server):
        assert server.send("GET", "/feed", **bearer(new_key())).status_code == 401

    def test_key_beside_credentials_for_a_proxy_counts(self, closed):
        key = closed.add("reader", "read")
        both = {"Authorization": "Basic dXNlcjpwYXNz", "X_API_Key": key}
        assert closed.send("GET", "/feed", **both).status_code == 200


class TestScoring:
    def test_it_is_open_unless_a_setting_closes_it(self, server, closed):
        key = server.add("scorer", "score")
        closed.cache.read(closed.store)
        assert server.send("POST", "/score").status_code == 200
        refused(closed.send("POST", "/score"), 401, "scope score")
        assert closed.send("POST", "/score", **bearer(key)).status_code == 200
        assert closed.send("POST", "/score/", **bearer(key)).status_code == 200
        refused(closed.send("POST", "/messages", **bearer(key)), 403, "scope write")


class TestRateLimit:
    def test_requests_beyond_it_wait(self, server):
        key, other = server.add("bot", rate=3), server.add("other", rate=3)
        for _ in range(3):
            assert server.send(**bearer(key)).status_code == 200
        answer = server.send(**bearer(key))
        refused(answer, 429, "3 requests a minute")
        assert 18 <= int(answer.headers["retry-after"]) <= 20
        assert server.send("GET", "/feed", **bearer(key)).status_code == 429
        assert server.send(**bearer(other)).status_code == 200
        server.cache.read(server.store)  # which does not fill it
        assert server.send(**bearer(key)).status_code == 429

    def test_tokens_come_back_steadily(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(key_cache.time, "monotonic", lambda: now[0])
        bucket = key_cache.TokenBucket(60)
        assert [bucket.take() for _ in range(60)] == [0.0] * 60
        assert bucket.take() == pytest.approx(1.0)
        now[0] += 0.75
        assert bucket.take() == pytest.approx(0.25)
        now[0] += 1.25
        assert [bucket.take() for _ in range(3)] == pytest.approx([0.0, 0.0, 1.0])
        now[0] += 3600
        assert [bucket.take() for _ in range(61)] == pytest.approx([0.0] * 60 + [1.0])


class GoneStore:
    """A holder whose store cannot be reached."""

    @property
    def store(self):
        raise StoreUnavailable("the message store is being opened")


class TestUnknownKeys:
    """The keys have not been read, or not for too long."""

    @pytest.fixture(params=["never read", "not read lately"])
    def unknown(self, request, store, monkeypatch):
        def make(**own):
            server = Server(store, **own)
            if request.param == "not read lately":
                server.key = server.add("admin", "admin")
                monkeypatch.setattr(key_cache, "MAX_AGE", -1.0)
            else:
                server.key = store.add_key("admin", ["admin"])
            return server

        return make

    def test_writing_is_refused_whatever_the_key(self, unknown):
        server = unknown()
        for headers in ({}, bearer(server.key), bearer(new_key())):
            answer = server.send(**headers)
            refused(answer, 503, "API keys cannot be read")
            assert answer.headers["retry-after"]

    def test_what_is_open_stays_open(self, unknown):
        server = unknown()
        for headers in ({}, bearer(server.key), bearer(new_key())):
            assert server.send("GET", "/feed", **headers).status_code == 200
            assert server.send("POST", "/score", **headers).status_code == 200

    def test_what_is_closed_is_refused(self, unknown):
        server = unknown(reading_needs_key=True, scoring_needs_key=True)
        refused(server.send("GET", "/feed", **bearer(server.key)), 503, "API keys")
        refused(server.send("POST", "/score", **bearer(server.key)), 503, "API keys")
        assert server.send("GET", "/livez").status_code == 200


class TestThread:
    @pytest.fixture
    def running(self, server, monkeypatch):
        monkeypatch.setattr(key_cache, "REFRESH", 0.05)
        server.cache.start()
        yield server
        server.cache.stop()

    def wait_for(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_changes_by_other_processes_are_noticed(self, running):
        assert running.send().status_code == 200
        key = running.store.add_key("bot", ["write"])
        self.wait_for(lambda: running.send().status_code == 401)
        assert running.send(**bearer(key)).status_code == 200
        running.store.add_key("other", ["write"])
        running.store.revoke_key("bot")
        self.wait_for(lambda: running.send(**bearer(key)).status_code == 401)

    def test_use_is_recorded_once_a_minute(self, running):
        key = running.add()
        running.send(**bearer(key))
        self.wait_for(lambda: running.store.api_keys()[0].last_used_at)
        first = running.store.api_keys()[0].last_used_at
        for _ in range(5):
            running.send(**bearer(key))
        time.sleep(0.3)
        assert running.store.api_keys()[0].last_used_at == first

    def test_keys_are_unknown_once_the_store_is_gone_for_too_long(self, running, monkeypatch):
        key = running.add()
        monkeypatch.setattr(key_cache, "MAX_AGE", 0.5)
        running.cache._holder = GoneStore()
        assert running.send(**bearer(key)).status_code == 200
        self.wait_for(lambda: running.send(**bearer(key)).status_code == 503)
        assert running.send().status_code == 503
        running.cache._holder = running.holder
        self.wait_for(lambda: running.send(**bearer(key)).status_code == 200)
        assert running.send().status_code == 401
