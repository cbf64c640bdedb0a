"""Benchmark and load test: texts, engines, clients, peers, page and thresholds."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from aiohttp import web
from serving import ROOT
from tiny_bert import HIDDEN, save_tiny_bert
from wheel_layers import LAYERS as SERVED_LAYERS

from feedsieve.scoring.encoder import Encoder
from feedsieve.settings import settings
from feedsieve.text import fingerprint
from loadtests.__main__ import LOCUSTFILE
from loadtests.behind_bulk import BULK, LONG, long_texts
from loadtests.harness import baselines, page
from loadtests.harness.baselines import Baselines
from loadtests.harness.clients import Job, load
from loadtests.harness.engine import SERVED, Shape
from loadtests.harness.messages import different, of_length, read_texts, repeating
from loadtests.harness.plan import medians
from loadtests.harness.processes import free_port, memory, running, watching
from loadtests.harness.thresholds import SLOWEST, violations
from loadtests.peers import start
from loadtests.sections import service

TEXTS = ["сдам квартиру 2 спальни 900 евро", "сниму студию", "flat to let 900 euro, 2 rooms", "да"]
LAYERS, INTERMEDIATE = 2, 64  # of the tiny BERT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Baselines:
    """A tiny BERT, exported in every way."""
    folder = tmp_path_factory.mktemp("baselines")
    return Baselines.write(
        str(save_tiny_bert(folder / "tiny", prefix="query: ")), folder / "written", TEXTS, 256
    )


class TestMessages:
    def test_different_texts_are_unique_across_runs(self):
        seen = [fingerprint(text) for run in (1, 2) for text in islice(different(TEXTS, run), 1000)]
        assert len(set(seen)) == 2000

    def test_repeating_texts_repeat_only_within_a_turn(self):
        chat = ["да", "нет", "да", "flat", "да"]
        seen = [text for run in (1, 2) for text in islice(repeating(chat, run), 2 * len(chat))]
        assert sorted(Counter(seen).values()) == sorted(4 * [1, 1, 3])
        assert seen[0] == seen[2] == seen[4] != seen[5]
        assert seen[0].startswith("да")

    def test_of_length_returns_distinct_texts_of_the_length(self):
        texts = of_length(TEXTS, 5, 3, lambda text: len(text.split()))
        assert [len(text.split()) for text in texts] == [5, 5, 5]
        assert len(set(texts)) == 3

    def test_read_texts_without_a_file_returns_the_sample_with_reposts(self):
        texts = read_texts(None)
        assert len(set(map(fingerprint, texts))) < len(texts)


class TestEngines:
    def test_engines_give_nearly_equal_embeddings(self, tiny):
        expected = baselines.Transformers(tiny, tokens_a_batch=1).encode(TEXTS)
        assert expected.shape == (len(TEXTS), HIDDEN)
        in_batches = baselines.Transformers(tiny).encode(TEXTS)
        fp32 = baselines.OnnxRuntime(tiny.fp32, tiny).encode(TEXTS)
        int8 = baselines.OnnxRuntime(tiny.int8, tiny).encode(TEXTS)
        ours = Encoder(tiny.ours).encode(TEXTS)
        assert np.allclose(expected, in_batches, atol=1e-5)
        assert np.allclose(expected, fp32, atol=1e-4)
        assert not np.array_equal(fp32, int8)
        assert not np.array_equal(int8, ours)
        assert (expected * int8).sum(axis=1).min() > 0.9
        assert (expected * ours).sum(axis=1).min() > 0.9

    @pytest.mark.parametrize("kind", ["fp32", "int8", "ours"])
    def test_shape_of_the_onnx_file_matches_the_config(self, tiny, kind):
        shape = Shape.of(getattr(tiny, kind) / "model.onnx", HIDDEN)
        weights = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
        assert shape == Shape(LAYERS, HIDDEN, weights)
        tokens = 10
        attention = LAYERS * 2 * 2 * tokens * tokens * HIDDEN  # scores, then sums of values
        assert shape.flops([tokens, tokens]) == 2 * (2 * tokens * weights + attention)


class Flaky:
    """A server that rejects each third request, and records requests."""

    takes = 0.02  # seconds
    rejects = True

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.port = free_port()

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.rejects and len(self.bodies) % 3 == 0:
            return web.Response(status=503, headers={"Retry-After": "1"})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.takes)
        self.in_flight -= 1
        return web.json_response([])

    def run(self, loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        app = web.Application()
        app.router.add_post("/score", self.answer)
        runner = web.AppRunner(app)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    server, loop, started = Flaky(), asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=server.run, args=(loop, started))
    thread.start()
    assert started.wait(30)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class TestClients:
    def job(self, flaky: Flaky, **fields) -> Job:
        defaults = {"url": f"http://127.0.0.1:{flaky.port}", "seconds": 1.0, "texts": TEXTS}
        return Job(**(defaults | fields))

    def test_closed_loop_has_one_request_per_client_with_new_texts(self, flaky):
        result = load(self.job(flaky, clients=4, texts_a_request=2, prefix="query: "))
        assert flaky.most_in_flight == 4
        sent = [text for body in flaky.bodies for text in body["texts"]]
        assert len(sent) == len(set(sent)) == 2 * len(flaky.bodies)
        assert all(text.startswith("query: ") for text in sent)
        assert result.success.requests == pytest.approx(2 * result.failures["503"], abs=6)
        assert result.retry_after == result.failures["503"]
        assert 20 <= result.success.p50 <= result.success.p95 <= result.success.p99

    def test_requests_cut_by_the_ends_count_in_part(self, flaky):
        flaky.takes, flaky.rejects = 0.7, False
        result = load(self.job(flaky, clients=3, warm_up=0.3))
        in_flight = result.throughput * result.success.p50 / 1000  # Little's law
        assert in_flight == pytest.approx(3, rel=0.05)
        assert len(flaky.bodies) == 6
        assert result.success.requests == 3  # the others end too late to count

    def test_open_loop_does_not_wait_for_responses(self, flaky):
        result = load(self.job(flaky, rate=300.0))
        assert len(flaky.bodies) == 300
        assert sum(latency.requests for latency in result.by_status.values()) == 300
        assert flaky.most_in_flight > 1

    def test_refused_connection_counts_as_failure(self):
        result = load(Job(f"http://127.0.0.1:{free_port()}", 0.2, texts=TEXTS))
        assert result.success is None
        assert result.throughput == 0
        assert list(result.failures) == ["ClientConnectorError"]


def test_long_texts_are_of_one_length_and_differ():
    for texts in (["Сдаётся дом"], read_texts(None)):
        long = long_texts(texts, BULK)
        assert len(long) == BULK
        assert {len(text) for text in long} == {LONG}
    assert len(set(long)) == BULK


def test_watching_includes_child_processes():
    hungry = "x = bytearray(b'1') * 100_000_000\nwhile True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hungry!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    try:
        with watching(process.pid) as usage:
            deadline = time.monotonic() + 60
            while usage.largest_pss < 100_000_000:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        assert usage.cpu > 0
        assert usage.largest_rss >= usage.largest_pss
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it leads its own session
        process.wait()
    assert memory(process.pid) == (0, 0)


class TestPeers:
    def test_our_two_peers_give_the_same_scores(self, tiny, tmp_path):
        scores = []
        for which in start.PEERS[:2]:
            port = free_port()
            command = which.command(Path(sys.executable).parent, tiny, port)
            url = f"http://127.0.0.1:{port}"
            with running(command, url + which.ready, tmp_path / "log", {}, 60):
                scores.append(post(url + which.path, {which.key: TEXTS}))
        flask, fastapi = ([one["score"] for one in answer] for answer in scores)
        assert flask == pytest.approx(fastapi, abs=1e-4)
        assert len(set(flask)) == len(TEXTS)

    def test_peer_that_cannot_be_installed_is_in_the_table(self, tmp_path, monkeypatch):
        (tmp_path / "infinity.txt").write_text("./nowhere")
        monkeypatch.setattr(start, "HERE", tmp_path)
        monkeypatch.setattr(settings(), "cache", tmp_path)
        with pytest.raises(start.PeerUnavailable, match="nowhere") as raised:
            start.install(start.PEERS[2])
        assert not (tmp_path / "peers" / "infinity" / "installed").exists()
        one = {
            "messages_a_second": 10.0, "p50": 1.0, "p95": 2.0, "p99": 3.0, "failures": {},
            "start_pss": 1, "largest_pss": 2, "server_cpu": 1.0, "client_cpu": 0.1,
        }  # fmt: skip
        loads = dict.fromkeys(("1", "8", "32", "64"), one)
        figures = {
            "rounds": 1,
            "served": {"layers": 4, "precision": "int8"},
            "max_tokens": 160,
            "servers": dict.fromkeys(("different", "repeating", "bulk"), loads)
            | {which.name: loads for which in start.PEERS[:2]},
            "unavailable": {"infinity": str(raised.value)},
            "alone": {size: {"encoder": 20.0, "scorer": 10.0} for size in ("64", "256")},
        }
        text = service.render(figures, tmp_path / "images")
        [line] = [row for row in text.splitlines() if "infinity-emb" in row]
        assert "nowhere" in line
        assert "50 %" in text


def post(url: str, body: dict) -> list[dict]:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)


def test_write_keeps_the_other_sections_of_the_page(tmp_path):
    page.write(tmp_path, "engine", "old engine", ["engine", "feed"])
    page.write(tmp_path, "feed", "feed", ["engine", "feed"])
    path = tmp_path / page.PAGE
    path.write_text(path.read_text() + "\nwritten by hand\n")
    page.write(tmp_path, "engine", "new engine", ["engine", "feed", "start"])
    text = path.read_text()
    assert "old engine" not in text
    assert text.index("new engine") < text.index("\nfeed") < text.index("written by hand")
    assert text.count("<!-- start -->") == 1


@dataclass
class Entry:
    """Statistics as Locust has them. Importing Locust would patch sockets."""

    p99: float = 10
    num_failures: int = 0
    num_requests: int = 100
    total_rps: float = 100

    def get_response_time_percentile(self, percent: float) -> float:
        assert percent == 0.99
        return self.p99


def test_medians_merge_repeated_runs():
    runs = [
        {"a_second": 1.0, "p99": None, "largest_pss": 5, "p50": None, "failures": {"503": 2}},
        {"a_second": 9.0, "p99": 2.0, "largest_pss": 7, "p50": None, "failures": {}},
        {"a_second": 3.0, "p99": 4.0, "largest_pss": 6, "p50": None, "failures": {"429": 1}},
    ]
    assert medians(runs) == {
        "a_second": 3.0, "p99": 3.0, "largest_pss": 7, "failures": {"503": 2, "429": 1},
        "p50": None, "each": runs,
    }  # fmt: skip


class TestThresholds:
    def test_no_violation_gives_no_line(self):
        assert violations("reader", {"/feed": Entry(), "/new": Entry(9999)}, Entry()) == []

    def test_each_violation_is_named(self):
        slow = {"/feed": Entry(p99=SLOWEST["/feed"] + 1), "/messages": Entry()}
        [line] = violations("reader", slow, Entry())
        assert line.startswith("/feed: p99")
        assert violations("reader", slow, Entry(), slack=2) == []
        [line] = violations("reader", {"/feed": Entry(num_failures=1)}, Entry())
        assert line == "/feed: 1 of 100 requests failed"
        [line] = violations("reader", {"/feed": Entry()}, Entry(total_rps=1))
        assert line.startswith("reader: 1.0 requests a second")

    @pytest.mark.parametrize(("slack", "code"), [("0.001", 1), ("1000", 0)])
    def test_violations_fail_a_load_test(self, server, slack, code, tmp_path):
        done = subprocess.run(
            [Path(sys.executable).with_name("locust"), "--headless", "--locustfile", LOCUSTFILE]
            + ["--host", server.url, "--users", "2", "--spawn-rate", "2", "--run-time", "4s"]
            + ["--slack", slack, "--html", tmp_path / "report.html", "Reader"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert ("threshold broken: /feed: p99" in done.stderr) == (code == 1)
        assert "/score" not in done.stderr
        assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.lab  # minutes: each engine is loaded in a process of its own
def test_benchmark_writes_figures_page_and_plots(environment, tmp_path):
    """Sections on engines and layers, with a tiny encoder for the baselines."""
    figures = tmp_path / "benchmark.json"
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.benchmark", "--quick", "--only", "engine", "layers"]
        + ["--encoder", save_tiny_bert(tmp_path / "tiny")]
        + ["--out", tmp_path / "docs", "--figures", figures],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    by_layers, engines = (json.loads(figures.read_text())[name] for name in ("layers", "engine"))
    [one] = by_layers["models"].values()
    assert one["layers"] == SERVED_LAYERS
    assert 0 < one["f1"] < 1
    assert one["messages_a_second"] > 0
    layers = {name: one["layers"] for name, one in engines["engines"].items()}
    assert layers.pop(SERVED) == SERVED_LAYERS
    assert set(layers.values()) == {LAYERS}
    for shares in engines["operators"].values():
        assert sum(shares.values()) == pytest.approx(1)
    text = (tmp_path / "docs" / page.PAGE).read_text()
    assert all(name in text for name in engines["engines"])
    assert f"| {SERVED_LAYERS} | {one['f1']:.3f} |" in text
    assert text.count(f"before; served: {SERVED_LAYERS} layers in ") == 2
    for name in ("engine.svg", "layers.svg"):
        assert (tmp_path / "docs" / "images" / name).stat().st_size > 0


def test_benchmark_without_a_model_names_make_train(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.benchmark", "--quick", "--out", tmp_path / "docs"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "make train" in line
    assert not (tmp_path / "docs").exists()
