"""No request holds the event loop for more than 50 ms, whatever its body and texts are."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving import ROOT, free_port
from test_json_shape import TOO_MANY

from feedsieve.api.schemas import MAX_BODY

TEXTS = {
    "long": "Сдаётся квартира у моря. " * 300,
    "marks": "а" + "\u0301" * 7_000,
    "ligatures": "\ufdfa" * 500,  # 9,000 characters once normalised
    "digits": "1" * 7_000,
    "emoji": "🏠" * 3_500,
    "escaped": '"\\' * 3_000,
}


@dataclass
class Watched:
    """A server whose slow callbacks are in a file."""

    client: httpx.Client
    report: Path

    def slow(self) -> str:
        return self.report.read_text() if self.report.exists() else ""


@pytest.fixture(scope="module")
def watched(small_home, tmp_path_factory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    port, report = free_port(), folder / "slow.txt"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("slow_callbacks.py"), str(port), report],
            cwd=ROOT,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "BENTOML_HOME": str(small_home),
                "FEEDSIEVE_DB": str(folder / "messages.db"),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        for path in ("/feed", "/messages/1"):  # what is imported with the first request
            client.get(path)
        client.post("/score", json={"texts": ["first"]})
        report.unlink(missing_ok=True)
        try:
            yield Watched(client, report)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_texts_hold_the_loop_for_a_moment(watched):
    for name, text in TEXTS.items():
        texts = [f"{number} {text}" for number in range(256)]
        size = len(json.dumps(texts, ensure_ascii=False).encode())
        texts = texts[: int(256 * min(1, 0.95 * MAX_BODY / size))]
        for body in ({"texts": texts}, [{"id": t[:9], "text": t, "source": name} for t in texts]):
            path = "/score" if isinstance(body, dict) else "/messages"
            content = json.dumps(body, ensure_ascii=False).encode()
            answer = watched.client.post(
                path, content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 200, answer.text[:200]
            assert not watched.slow(), f"{path}, {name}: {watched.slow()}"


def test_bodies_of_many_values_hold_the_loop_for_a_moment(watched):
    for path in ("/score", "/messages"):
        for name, body in TOO_MANY.items():
            content = body.ljust(MAX_BODY)
            headers = {"Content-Type": "application/json"}
            assert watched.client.post(path, content=content, headers=headers).status_code == 400
            assert not watched.slow(), f"{path}, {name}: {watched.slow()}"


def test_routes_hold_the_loop_for_a_moment(watched):
    paths = [
        *("/feed?limit=100", "/messages?limit=100", "/version", "/metrics", "/openapi.json"),
        *("/docs", "/livez", "/readyz", "/nothing", "/messages/1?explain=1", "/"),
    ]
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(watched.client.get, paths * 5))
        list(clients.map(lambda path: watched.client.get(path, headers={"Accept": "*/*"}), paths))
    assert not watched.slow(), watched.slow()
