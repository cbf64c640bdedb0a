"""Load shedding, and clients that disconnect."""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from serving import serve, wait_for, wait_until, wait_until_ready
from starlette.responses import Response

from feedsieve.api.problems import CLIENT_CLOSED_REQUEST, ProblemMiddleware
from feedsieve.api.request_body import SLOW_SECONDS

PLACES = 3
MANY = 100


@pytest.fixture(scope="module")
def crowded(environment, tmp_path_factory):
    """A server that admits three requests to be scored, with an empty store."""
    folder = tmp_path_factory.mktemp("crowded")
    own = {
        "FEEDSIEVE_WAITING": str(PLACES),
        "FEEDSIEVE_DB": str(folder / "new.db"),
        "FEEDSIEVE_CASCADE": "0",  # the encoder embeds every text
        "FEEDSIEVE_THREADS": "1",  # a request takes several batches
    }
    with serve(environment | own, folder) as server:
        wait_until_ready(server)
        yield server


def many(name):
    """Return new texts that take half a second or more."""
    return [f"{name} {number}: " + "сдаётся квартира в центре, море " * 8 for number in range(MANY)]


def embedded(server):
    return server.metric("feedsieve_texts_embedded_total")[""]


def test_excess_requests_are_rejected_and_others_answered(crowded):
    def post(number):
        started = time.monotonic()
        answer = crowded.client.post("/score", json={"texts": many(f"client {number}")})
        return time.monotonic() - started, answer

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(post, range(12)))
    accepted = [took for took, answer in answers if answer.status_code == 200]
    refused = [(took, answer) for took, answer in answers if answer.status_code == 503]
    assert len(accepted) >= PLACES
    assert len(accepted) + len(refused) == 12
    for took, answer in refused:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert "wait to be scored" in answer.json()["detail"]
        assert took < max(accepted)
    assert crowded.client.post("/score", json={"texts": ["afterwards"]}).status_code == 200


def test_other_routes_answer_under_load(crowded):
    with ThreadPoolExecutor(PLACES) as clients:
        posts = [
            clients.submit(crowded.client.post, "/score", json={"texts": many(f"busy {number}")})
            for number in range(PLACES)
        ]
        wait_for(crowded, "/metrics", lambda _: True)
        assert crowded.client.get("/feed").status_code == 200
        assert crowded.client.get("/readyz").status_code == 200
        assert not all(post.done() for post in posts)


def test_texts_of_a_disconnected_client_are_not_scored(crowded):
    before = embedded(crowded)
    texts = many("patient")
    with ThreadPoolExecutor(PLACES - 1) as clients:
        patient = [
            clients.submit(crowded.client.post, "/score", json={"texts": texts[at :: PLACES - 1]})
            for at in range(PLACES - 1)
        ]
        # Requests take turns: two others come first, so it leaves before its own.
        wait_until(lambda: embedded(crowded) > before)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{crowded.url}/score", json={"texts": many("gone")}, timeout=0.05)
        assert [one.result().status_code for one in patient] == [200] * (PLACES - 1)
    assert crowded.client.post("/score", json={"texts": ["the next"]}).status_code == 200
    assert embedded(crowded) - before == MANY + 1
    log = crowded.log.read_text(encoding="utf-8")
    assert "Traceback" not in log and "never retrieved" not in log


def messages_of(app):
    """Return what `ProblemMiddleware` around `app` sends for a POST to /score."""

    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/score", "headers": []}
        await ProblemMiddleware(app)(scope, None, send)
        return sent

    return asyncio.run(run())


def test_answer_to_a_disconnected_client_ends_the_request():
    """BentoML's timeout and a server that stops wait for it."""

    async def answer(scope, receive, send):
        await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)

    assert [(message["type"], message.get("status")) for message in messages_of(answer)] == [
        ("http.response.start", CLIENT_CLOSED_REQUEST),
        ("http.response.body", None),
    ]


def test_request_that_takes_too_long_is_answered_with_a_problem(monkeypatch):
    monkeypatch.setattr("feedsieve.api.problems.ANSWER_SECONDS", 0.05)

    async def never(scope, receive, send):
        await asyncio.sleep(60)

    start, body = messages_of(never)
    assert start["status"] == 504
    assert b"no answer within" in body["body"]


@pytest.mark.parametrize("length", [b"Transfer-Encoding: chunked", b"Content-Length: 100"])
def test_half_sent_bodies_take_no_place(crowded, length):
    host, port = crowded.url.removeprefix("http://").split(":")
    with ExitStack() as connections:
        for _ in range(4 * PLACES):
            slow = connections.enter_context(socket.create_connection((host, int(port))))
            slow.sendall(
                b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"%s\r\n\r\n" % length
            )
        time.sleep(0.3)
        assert crowded.client.post("/score", json={"texts": ["meanwhile"]}).status_code == 200


def test_slow_body_is_refused(crowded):
    host, port = crowded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SLOW_SECONDS + 10) as slow:
        slow.sendall(
            b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        started = time.monotonic()
        answer = b""
        while b"bytes a second" not in answer:
            answer += (part := slow.recv(65536))
            assert part, answer
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert SLOW_SECONDS - 0.5 < time.monotonic() - started < SLOW_SECONDS + 5
