"""Pages of other sites: closed by default, and what FEEDSIEVE_CORS_ORIGINS opens."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest
from serving import serve, wait_for
from test_bad_input import assert_problem

READER = "https://reader.example"
BENTOML_CORS = """\
services:
  feedsieve:
    http:
      cors:
        enabled: true
        access_control_allow_origins: ["*"]
"""
JSON = {"Content-Type": "application/json"}
BODY = b'{"texts": ["text"]}'


@pytest.fixture(scope="module")
def listed(small_environment, tmp_path_factory):
    """A server that is open to two origins and admits one request to be scored."""
    origins = f"{READER.upper()}:443, http://localhost:5173"
    own = {"FEEDSIEVE_CORS_ORIGINS": origins, "FEEDSIEVE_WAITING": "1"}
    with serve(small_environment | own, tmp_path_factory.mktemp("listed")) as server:
        wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield server


@pytest.fixture(scope="module")
def open_to_all(small_environment, tmp_path_factory):
    """A server that is open to every origin, by BentoML's configuration as well."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "cors.yaml").write_text(BENTOML_CORS)
    own = {"FEEDSIEVE_CORS_ORIGINS": "*", "BENTOML_CONFIG": str(folder / "cors.yaml")}
    with serve(small_environment | own, folder) as server:
        wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield server


def preflight(server, path="/score", origin=READER, method="POST", headers="content-type"):
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return server.client.options(path, headers={"Origin": origin} | asked)


def allowed(answer):
    return answer.headers.get("access-control-allow-origin")


def varies(answer):
    return [name.strip() for name in answer.headers["vary"].split(",")]


REQUESTS = {  # what is asked, and the status of the answer
    "page": ("GET", "/feed", {"Accept": "text/html"}, None, 200),
    "json": ("GET", "/feed", {}, None, 200),
    "redirect": ("GET", "/", {}, None, 307),
    "no route": ("GET", "/nothing", {}, None, 404),
    "no message": ("GET", "/messages/nobody", {}, None, 404),
    "wrong method": ("DELETE", "/feed", {}, None, 405),
    "wrong parameter": ("GET", "/feed?limit=x", {}, None, 422),
    "scores": ("POST", "/score", JSON, BODY, 200),
    "bad body": ("POST", "/score", JSON, b"{", 400),
    "bad type": ("POST", "/score", {"Content-Type": "text/plain"}, BODY, 415),
    "bad coding": ("POST", "/score", JSON | {"Content-Encoding": "br"}, BODY, 415),
    "too large": ("POST", "/score", JSON, b" " * 6_500_001, 413),
    "ready": ("GET", "/readyz", {}, None, 200),
}
requests = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)


def send(server, request, **headers):
    method, path, own, body, status = request
    answer = server.client.request(method, path, headers=own | headers, content=body)
    assert answer.status_code == status, answer.text
    return answer


class TestClosed:
    @requests
    def test_no_answer_is_for_other_origins(self, small_server, request_):
        answer = send(small_server, request_, Origin=READER)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" not in answer.headers.get("vary", "")

    def test_preflight_is_refused(self, small_server):
        answer = preflight(small_server)
        assert_problem(answer, 405, "answers POST")
        assert allowed(answer) is None


class TestListed:
    @requests
    @pytest.mark.parametrize("origin", [READER, "http://localhost:5173"])
    def test_every_answer_names_the_origin(self, listed, request_, origin):
        answer = send(listed, request_, Origin=origin)
        assert allowed(answer) == origin
        assert "Origin" in varies(answer)
        assert "ETag" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers

    @requests
    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "http://reader.example",
            "https://reader.example:8443",
            "https://reader.example.evil.example",
            "https://evil.example/https://reader.example",
            "null",
            "*",
            None,
        ],
    )
    def test_no_answer_is_for_other_origins(self, listed, request_, origin):
        answer = send(listed, request_, **({"Origin": origin} if origin else {}))
        assert allowed(answer) is None
        assert "Origin" in varies(answer)  # or a cache would serve it to the listed ones

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
    @pytest.mark.parametrize("path", ["/score", "/feed", "/messages/7/label"])
    def test_preflight_allows_methods_and_headers(self, listed, method, path):
        asked = "authorization,content-encoding,content-type,if-none-match"
        answer = preflight(listed, path, method=method, headers=asked)
        assert answer.status_code == 200
        assert allowed(answer) == READER
        assert method in answer.headers["access-control-allow-methods"].split(", ")
        assert answer.headers["access-control-allow-headers"] == asked
        assert "Origin" in varies(answer)

    @pytest.mark.parametrize(
        "asked", [{"origin": "https://evil.example"}, {"origin": "null"}, {"method": "TRACE"}]
    )
    def test_other_preflight_is_refused_as_a_problem(self, listed, asked):
        answer = preflight(listed, **asked)
        assert_problem(answer, 403, "FEEDSIEVE_CORS_ORIGINS")
        assert allowed(answer) is None

    def test_unchanged_answer_is_for_the_origin(self, listed):
        tag = listed.client.get("/feed").headers["etag"]
        known = {"Origin": READER, "If-None-Match": tag}
        answer = listed.client.get("/feed", headers=known)
        assert (answer.status_code, allowed(answer)) == (304, READER)
        assert varies(answer) == ["Accept", "Origin"]

    def test_overload_is_for_the_origin(self, listed):
        done = threading.Event()

        def keep_busy():
            for turn in count():  # new texts each time, or their scores are cached
                if done.is_set():
                    return
                texts = [f"{turn} {number}" + " сдаётся квартира" * 50 for number in range(256)]
                httpx.post(f"{listed.url}/score", json={"texts": texts}, timeout=60)

        with ThreadPoolExecutor(2) as clients:
            busy = [clients.submit(keep_busy) for _ in range(2)]
            try:
                refused = []
                wait_for(
                    listed,
                    "/metrics",
                    lambda _: (
                        (answer := self.post(listed)).status_code == 503
                        and not refused.append(answer)
                    ),
                )
            finally:
                done.set()
            assert not any(client.exception() for client in busy)
        [answer] = refused
        assert_problem(answer, 503, "wait to be scored")
        assert allowed(answer) == READER
        assert "Retry-After" in answer.headers["access-control-expose-headers"]

    def post(self, server):
        return server.client.post("/score", content=BODY, headers=JSON | {"Origin": READER})


class TestOpen:
    """Beside BentoML's own setting, of which nothing is left to see."""

    @requests
    @pytest.mark.parametrize("origin", [READER, "null"])
    def test_every_answer_is_for_all(self, open_to_all, request_, origin):
        answer = send(open_to_all, request_, Origin=origin)
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_preflight_is_for_all(self, open_to_all, method):
        answer = preflight(open_to_all, method=method, headers="authorization")
        assert answer.status_code == 200
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert method in answer.headers["access-control-allow-methods"]
