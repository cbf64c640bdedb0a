"""The benchmark: what it measures with is what it says, and what it finds is what there was."""

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

from feedsieve.encoder import Encoder
from feedsieve.settings import settings
from feedsieve.text import fingerprint
from loadtests import baselines, page, service
from loadtests.__main__ import LOCUSTFILE
from loadtests.baselines import Baselines
from loadtests.clients import Job, load
from loadtests.contender import SERVED
from loadtests.flops import Shape
from loadtests.medians import medians
from loadtests.messages import different, of_length, read_texts, repeating
from loadtests.peers import start
from loadtests.thresholds import SLOWEST, Thresholds
from loadtests.watch import memory, watching
from train.servers import free_port, running

TEXTS = ["сдам квартиру 2 спальни 900 евро", "сниму студию", "flat to let 900 euro, 2 rooms", "да"]
LAYERS, INTERMEDIATE = 2, 64  # of the tiny BERT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Baselines:
    """A tiny BERT, exported in every way."""
    folder = tmp_path_factory.mktemp("baselines")
    (folder / "written").mkdir()
    return baselines.write(
        str(save_tiny_bert(folder / "tiny", prefix="query: ")), folder / "written", TEXTS, 256
    )


class TestMessages:
    def test_different_ones_are_never_the_same_in_any_run(self):
        seen = [fingerprint(text) for run in (1, 2) for text in islice(different(TEXTS, run), 1000)]
        assert len(set(seen)) == 2000

    def test_a_chat_repeats_within_a_turn_and_a_run_alone(self):
        chat = ["да", "нет", "да", "flat", "да"]
        seen = [text for run in (1, 2) for text in islice(repeating(chat, run), 2 * len(chat))]
        assert sorted(Counter(seen).values()) == sorted(4 * [1, 1, 3])
        assert seen[0] == seen[2] == seen[4] != seen[5]
        assert seen[0].startswith("да")

    def test_texts_are_made_as_long_as_they_are_wanted(self):
        made = of_length(TEXTS, 5, 3, lambda texts: [len(text.split()) for text in texts])
        assert [len(text.split()) for text in made] == [5, 5, 5]
        assert len(set(made)) == 3

    def test_without_a_file_they_are_the_sample_corpus_with_its_reposts(self):
        texts = read_texts(None)
        assert len(set(map(fingerprint, texts))) < len(texts)


class TestEngines:
    def test_all_of_them_are_the_same_encoder(self, tiny):
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
    def test_operations_are_those_of_the_config(self, tiny, kind):
        shape = Shape.of(getattr(tiny, kind) / "model.onnx", HIDDEN)
        weights = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
        assert shape == Shape(LAYERS, HIDDEN, weights)
        tokens = 10
        attention = LAYERS * 2 * 2 * tokens * tokens * HIDDEN  # scores, then sums of values
        assert shape.flops([tokens, tokens]) == 2 * (2 * tokens * weights + attention)


class Flaky:
    """A server that refuses each third request at once, and remembers what it was asked."""

    takes = 0.02  # seconds
    refuses = True

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.port = free_port()

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.refuses and len(self.bodies) % 3 == 0:
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

    def test_each_has_one_request_in_flight_and_asks_for_something_else(self, flaky):
        said = load(self.job(flaky, clients=4, texts_a_request=2, prefix="query: "))
        assert flaky.most_in_flight == 4
        asked = [text for body in flaky.bodies for text in body["texts"]]
        assert len(asked) == len(set(asked)) == 2 * len(flaky.bodies)
        assert all(text.startswith("query: ") for text in asked)
        assert said.success.requests == pytest.approx(2 * said.failures["503"], abs=6)
        assert said.retry_after == said.failures["503"]
        assert 20 <= said.success.p50 <= said.success.p95 <= said.success.p99

    def test_requests_that_the_ends_cut_count_in_part(self, flaky):
        flaky.takes, flaky.refuses = 0.7, False
        said = load(self.job(flaky, clients=3, warm_up=0.3))
        in_flight = said.throughput * said.success.p50 / 1000  # Little's law
        assert in_flight == pytest.approx(3, rel=0.05)
        assert len(flaky.bodies) == 6
        assert said.success.requests == 3  # the others end too late to count

    def test_an_open_loop_does_not_wait_for_answers(self, flaky):
        said = load(self.job(flaky, rate=300.0))
        assert len(flaky.bodies) == 300
        assert sum(latency.requests for latency in said.by_status.values()) == 300
        assert flaky.most_in_flight > 1

    def test_no_answer_is_a_failure(self):
        said = load(Job(f"http://127.0.0.1:{free_port()}", 0.2, texts=TEXTS))
        assert said.success is None
        assert said.throughput == 0
        assert list(said.failures) == ["ClientConnectorError"]


def test_memory_and_time_of_all_processes_are_seen():
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
        os.killpg(process.pid, signal.SIGKILL)  # of the session that it was started in
        process.wait()
    assert memory(process.pid) == (0, 0)


class TestPeers:
    def test_the_two_of_our_own_give_the_same_score(self, tiny, tmp_path):
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

    def test_one_that_cannot_be_installed_is_in_the_table(self, tmp_path, monkeypatch):
        (tmp_path / "infinity.txt").write_text("./nowhere")
        monkeypatch.setattr(start, "HERE", tmp_path)
        monkeypatch.setattr(settings(), "cache", tmp_path)
        with pytest.raises(start.NoPeer, match="nowhere") as raised:
            start.installed(start.PEERS[2])
        assert not (tmp_path / "peers" / "infinity" / "installed").exists()
        one = {
            "messages_a_second": 10.0, "p50": 1.0, "p95": 2.0, "p99": 3.0, "failures": {},
            "start_pss": 1, "largest_pss": 2, "server_cpu": 1.0, "client_cpu": 0.1,
        }  # fmt: skip
        loads = dict.fromkeys(("1", "8", "32", "64"), one)
        found = {
            "rounds": 1,
            "served": {"layers": 4, "precision": "int8"},
            "max_tokens": 160,
            "servers": dict.fromkeys(("different", "repeating", "bulk"), loads)
            | {which.name: loads for which in start.PEERS[:2]},
            "unavailable": {"infinity": str(raised.value)},
            "alone": {size: {"encoder": 20.0, "scorer": 10.0} for size in ("64", "256")},
        }
        [line] = [row for row in service.section(found).splitlines() if "infinity-emb" in row]
        assert "nowhere" in line
        assert "50 %" in service.section(found)


def post(url: str, body: dict) -> list[dict]:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)


def test_the_page_keeps_what_was_not_measured_again(tmp_path):
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
    """What Locust counts; Locust itself patches sockets when it is imported."""

    p99: float = 10
    num_failures: int = 0
    num_requests: int = 100
    total_rps: float = 100

    def get_response_time_percentile(self, percent: float) -> float:
        assert percent == 0.99
        return self.p99


def test_several_runs_are_one_by_their_medians():
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
    def test_what_holds_says_nothing(self):
        assert Thresholds("reader").broken({"/feed": Entry(), "/new": Entry(9999)}, Entry()) == []

    def test_what_does_not_is_named(self):
        slow = {"/feed": Entry(p99=SLOWEST["/feed"] + 1), "/messages": Entry()}
        [line] = Thresholds("reader").broken(slow, Entry())
        assert line.startswith("/feed: p99")
        assert Thresholds("reader", slack=2).broken(slow, Entry()) == []
        [line] = Thresholds("reader").broken({"/feed": Entry(num_failures=1)}, Entry())
        assert line == "/feed: 1 of 100 requests failed"
        [line] = Thresholds("reader").broken({"/feed": Entry()}, Entry(total_rps=1))
        assert line.startswith("reader: 1.0 requests a second")

    @pytest.mark.parametrize(("slack", "code"), [("0.001", 1), ("1000", 0)])
    def test_they_fail_a_load_test(self, server, slack, code, tmp_path):
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


@pytest.mark.lab  # a minute: each engine is loaded in a process of its own
def test_a_section_is_measured_and_shown(environment, tmp_path):
    """Sections of engines and layers, of a tiny encoder beside the one that is served."""
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
    by_layers, found = (json.loads(figures.read_text())[name] for name in ("layers", "engine"))
    [one] = by_layers["models"].values()
    assert one["layers"] == 12
    assert 0 < one["f1"] < 1
    assert one["messages_a_second"] > 0
    layers = {name: one["layers"] for name, one in found["engines"].items()}
    assert layers.pop(SERVED) == 12
    assert set(layers.values()) == {LAYERS}
    for shares in found["operators"].values():
        assert sum(shares.values()) == pytest.approx(1)
    text = (tmp_path / "docs" / page.PAGE).read_text()
    assert all(name in text for name in found["engines"])
    assert f"| 12 | {one['f1']:.3f} |" in text
    assert text.count("before; served: 12 layers in ") == 2
    for name in ("engine.svg", "layers.svg"):
        assert (tmp_path / "docs" / "images" / name).stat().st_size > 0


def test_without_a_model_it_says_what_makes_one(tmp_path):
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
