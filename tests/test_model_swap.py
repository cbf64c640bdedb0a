"""A running server changes its model when the store wants another one."""

import asyncio
import gc
import json
import math
import os
import shutil
import subprocess
import tarfile
import time
import weakref
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from model_copies import CLASSIFIER, ENCODER, change, copy_pair, newest, shifted
from serving import BENTOML, ROOT, Server, serve, wait_for, wait_until, wait_until_ready

from feedsieve.message import Message
from feedsieve.serving.model_swap import CHECK_INTERVAL, ModelSwap
from feedsieve.serving.runtime import Runtime, _Interrupted
from feedsieve.settings import Settings
from feedsieve.settings import settings as read_settings
from feedsieve.store.store import MessageStore

SECONDS = float(os.environ.get("FEEDSIEVE_TEST_SWAP_SECONDS", "8"))  # of the load
CLIENTS = 32
SHIFT = 4.0  # the second model's scores are all higher, and it says negative to all of them
TEXTS = [f"Сдаётся квартира {number} в Лимассоле, {number}00 евро" for number in range(1, 200)]


@pytest.fixture(scope="module")
def home(small_home, tmp_path_factory) -> Path:
    """A BENTOML_HOME with the small pair, a second one, and three that are refused."""
    home = tmp_path_factory.mktemp("swap")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    first = home / "models" / CLASSIFIER / newest(home) / "classifier.json"
    change(first, threshold=1e-9)  # says positive to all
    for version in ("second", "tampered", "damaged", "lone"):
        copy_pair(home, version, SHIFT, threshold=1 - 1e-9)
    reference = home / "models" / CLASSIFIER / "tampered" / "reference.json"
    scores = json.loads(reference.read_text(encoding="utf-8"))["scores"]
    change(reference, scores=[1 - score for score in scores])
    (home / "models" / CLASSIFIER / "damaged" / "booster.txt").write_text("tree\n")
    shutil.rmtree(home / "models" / ENCODER / "lone")
    return home


@pytest.fixture(scope="module")
def first(home) -> str:
    return f"{CLASSIFIER}:{newest(home)}"


@pytest.fixture(scope="module")
def second() -> str:
    return f"{CLASSIFIER}:second"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> MessageStore:
    """The server's store, with the texts as messages."""
    store = MessageStore.open(tmp_path_factory.mktemp("swap_store") / "messages.db")
    store.add(Message(str(number), text) for number, text in enumerate(TEXTS))
    return store


@pytest.fixture(scope="module")
def running(home, store, tmp_path_factory):
    environment = {"BENTOML_HOME": str(home), "FEEDSIEVE_DB": store.location}
    with serve(environment, tmp_path_factory.mktemp("swap_server")) as server:
        wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield server


def serves(server: Server, model: str) -> None:
    """Wait until the server serves `model`."""
    wait_for(server, "/version", lambda answer: answer.json().get("model") == model)


def outcome(server: Server, store: MessageStore):
    """Wait for the server's answer to the last deployment."""
    number = store.wanted().number
    wait_for(server, "/livez", lambda _: store.deployment_outcomes(number))
    [answer] = store.deployment_outcomes(number)
    return answer


def swaps(server: Server, outcome: str) -> float:
    return server.metric("feedsieve_model_swaps_total")[f'outcome="{outcome}"']


class TestSwap:
    def test_answers_follow_the_wanted_model(self, running, store, first, second):
        body = {"texts": TEXTS[:3]}
        before = running.client.post("/score", json=body).json()
        assert {one["label"] for one in before} == {"positive"}
        store.deploy(second, "test")
        serves(running, second)
        after = running.client.post("/score", json=body).json()  # not the cached scores
        assert {one["label"] for one in after} == {"negative"}
        assert all(new["score"] > old["score"] for old, new in zip(before, after, strict=True))
        answer = running.client.get("/messages/1").json()
        assert (answer["model"], answer["label"]) == (second, "negative")
        assert f'model="{second}"' in " ".join(running.metric("feedsieve_backend_info"))
        assert running.client.get("/openapi.json").json()["info"]["version"] == second
        assert outcome(running, store).outcome == "done"
        wait_for(running, "/feed", lambda answer: answer.json()["model"] == second)
        store.roll_back("test")  # to FEEDSIEVE_MODEL
        serves(running, first)
        assert running.client.post("/score", json=body).json() == before

    def test_bad_model_is_refused_once_and_the_old_one_stays(self, running, store, first):
        log = len(running.log.read_text())
        before = swaps(running, "refused")
        store.deploy(f"{CLASSIFIER}:tampered", "test")
        answer = outcome(running, store)
        assert (answer.outcome, answer.model) == ("refused", first)
        assert "a score differs by" in answer.reason
        assert running.client.get("/version").json()["model"] == first
        time.sleep(2 * CHECK_INTERVAL)
        [line] = [line for line in running.log.read_text()[log:].splitlines() if "[ERROR]" in line]
        assert f"{CLASSIFIER}:tampered is wanted and refused: " in line
        assert swaps(running, "refused") == before + 1


class Clients:
    """Clients that post and read until they are stopped, and what was wrong with the answers."""

    def __init__(self, url: str, scores: dict[str, dict[str, float]]) -> None:
        """`scores` are those of each text, by model."""
        self.url = url
        self.scores = scores
        self.labels = dict(zip(scores, ("positive", "negative"), strict=True))
        self.stop = asyncio.Event()
        self.answers: Counter[str] = Counter()  # by model
        self.wrong: list[str] = []
        self.seconds: list[float] = []

    async def run(self, number: int) -> None:
        # Without `verify` each client would read all certificates, 0.2 s.
        async with httpx.AsyncClient(base_url=self.url, timeout=60, verify=False) as client:
            while not self.stop.is_set():
                number += CLIENTS
                row = number % len(TEXTS)
                started = time.perf_counter()
                try:
                    await [self.score, self.message, self.feed][number % 3](client, row)
                except httpx.TransportError as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                self.seconds.append(time.perf_counter() - started)

    def wait_for_answers(self, model: str) -> None:
        """Wait for more answers by `model` than there are clients, or for a wrong one."""
        enough = self.answers[model] + CLIENTS
        wait_until(lambda: self.wrong or self.answers[model] > enough)

    async def score(self, client: httpx.AsyncClient, row: int) -> None:
        texts = [TEXTS[row], TEXTS[row - 1]]
        answer = await client.post("/score", json={"texts": texts})
        if self.is_success(answer):
            self.check(list(zip(texts, answer.json(), strict=True)))

    async def message(self, client: httpx.AsyncClient, row: int) -> None:
        answer = await client.get(f"/messages/{row}")
        if self.is_success(answer):
            self.check([(TEXTS[row], answer.json())], answer.json()["model"])

    async def feed(self, client: httpx.AsyncClient, row: int) -> None:
        answer = await client.get("/feed", params={"limit": 10 + row % 50})
        if self.is_success(answer):
            page = answer.json()
            self.check([(item["text"], item) for item in page["items"]], page["model"])

    def is_success(self, answer: httpx.Response) -> bool:
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code}: {answer.text[:200]}")
        return answer.status_code == 200

    def check(self, scored, model: str | None = None) -> None:
        """Check that all scores and labels of an answer are of one model."""
        for name in [model] if model else self.scores:
            if all(
                abs(logit(one["score"]) - logit(self.scores[name][text])) < SHIFT / 8
                and one["label"] == self.labels[name]
                for text, one in scored
            ):
                self.answers[name] += 1
                return
        self.wrong.append(f"neither model's, or not that of {model}: {scored[:2]}")


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def test_no_request_is_lost_at_a_change_there_and_back(home, store, first, second, tmp_path):
    """Half of the texts are cached, the others are scored."""
    environment = {"BENTOML_HOME": str(home), "FEEDSIEVE_MODEL": first, "FEEDSIEVE_RECALLED": "100"}
    store.deploy(first, "test")
    with serve(environment | {"FEEDSIEVE_DB": store.location}, tmp_path) as server:
        wait_until_ready(server)
        wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        answer = server.client.post("/score", json={"texts": TEXTS}).json()
        expected = [one["score"] for one in answer]
        scores = {
            first: dict(zip(TEXTS, expected, strict=True)),
            second: dict(zip(TEXTS, shifted(np.array(expected), SHIFT).tolist(), strict=True)),
        }
        clients = Clients(server.url, scores)

        def swap() -> None:
            until = time.monotonic() + SECONDS
            while True:
                for model in (second, first):
                    store.deploy(model, "test")
                    serves(server, model)
                    clients.wait_for_answers(model)
                if time.monotonic() > until:
                    return

        async def load() -> None:
            tasks = [asyncio.create_task(clients.run(number)) for number in range(CLIENTS)]
            try:
                await asyncio.to_thread(swap)
            finally:
                clients.stop.set()
                await asyncio.gather(*tasks)

        asyncio.run(load())
        changes = swaps(server, "done")
    times = sorted(clients.seconds)
    print(
        f"{len(times)} requests, {changes:.0f} changes, median {times[len(times) // 2]:.3f} s,"
        f" p99 {times[len(times) * 99 // 100]:.3f} s, longest {times[-1]:.3f} s"
    )
    assert clients.wrong == []
    assert min(clients.answers[model] for model in (first, second)) > CLIENTS
    assert changes >= 2


def test_bento_takes_other_models_from_bentoml_home(home, small_home, second, tmp_path):
    """As a container does with a mounted model store; its own pair is in the Bento."""
    own, mounted = tmp_path / "own", tmp_path / "mounted"
    shutil.copytree(small_home, own)
    for name in (CLASSIFIER, ENCODER):
        shutil.copytree(home / "models" / name / "second", mounted / "models" / name / "second")
    run = {"cwd": ROOT, "env": os.environ | {"BENTOML_HOME": str(own)}, "check": True}
    built = subprocess.run([BENTOML, "build", "--output", "tag"], capture_output=True, **run)
    tag = built.stdout.decode().strip().rpartition("__tag__:")[2]
    subprocess.run([BENTOML, "export", tag, tmp_path / "feedsieve.tar"], **run)
    with tarfile.open(tmp_path / "feedsieve.tar") as archive:
        archive.extractall(tmp_path / "bento", filter="data")
    store = MessageStore.open(tmp_path / "messages.db")
    environment = {
        "BENTOML_HOME": str(mounted),
        "FEEDSIEVE_DB": store.location,
        "PYTHONPATH": str(tmp_path / "bento" / "src"),
    }
    with serve(environment, tmp_path, str(tmp_path / "bento"), source=tmp_path) as server:
        serves(server, f"{CLASSIFIER}:{newest(own)}")
        store.deploy(second, "test")
        serves(server, second)
        store.roll_back("test")  # to the pair in the Bento
        serves(server, f"{CLASSIFIER}:{newest(own)}")


class TestInProcess:
    @pytest.fixture
    def settings(self, home, store, first, monkeypatch):
        monkeypatch.setenv("BENTOML_HOME", str(home))
        read_settings.cache_clear()
        store.deploy(None, "test")
        yield Settings(db=store.location, model=first, threads=1)
        read_settings.cache_clear()

    def test_request_in_progress_keeps_its_pair_which_is_dropped_afterwards(
        self, settings, store, first, second
    ):
        runtime = Runtime(settings)
        thresholds = gc.get_threshold()
        runtime.start()
        try:
            wait_until(lambda: runtime.is_ready)
            model = runtime.model  # of a request
            before = asyncio.run(runtime.score(model, TEXTS[:1]))
            dropped = weakref.ref(model.scorer), weakref.ref(model.scorer.encoder)
            store.deploy(second, "test")
            wait_until(lambda: runtime.model.scorer.model == second)
            assert asyncio.run(runtime.score(model, TEXTS[1:2]))[0] != before[0]
            assert asyncio.run(runtime.score(model, TEXTS[:1])) == before
            [after] = asyncio.run(runtime.score(runtime.model, TEXTS[:1]))
            assert after.score > before[0].score
            assert model.scorer.model == first and dropped[0]() is not None
            del model
            wait_until(lambda: [one() for one in dropped] == [None, None])
        finally:
            runtime.stop()
            gc.unfreeze()
            gc.set_threshold(*thresholds)

    def test_server_starts_with_the_wanted_model(self, settings, store, second):
        store.deploy(second, "test")
        assert ModelSwap(settings).load_first().model == second

    @pytest.mark.parametrize(
        ("version", "reason"),
        [
            ("damaged", "not a complete LightGBM model"),
            ("lone", "the model store has no feedsieve-encoder:lone"),
            ("absent", "the model store has no feedsieve-classifier:absent"),
        ],
    )
    def test_model_that_cannot_be_loaded_is_refused(
        self, settings, store, first, caplog, version, reason
    ):
        swap = ModelSwap(settings)
        swap.load_first()
        store.deploy(f"{CLASSIFIER}:{version}", "test")
        assert swap.load_wanted(store, first) is None
        [line] = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert reason in line and "\n" not in line

    def test_server_starts_with_its_own_if_the_wanted_one_is_bad(self, settings, store, first):
        store.deploy(f"{CLASSIFIER}:damaged", "test")
        swap = ModelSwap(settings)
        assert swap.load_first().model == first
        assert swap.load_wanted(store, first) is None  # not tried again
        swap.send_outcome(store, first)
        answers = store.deployment_outcomes(store.wanted().number)  # a server of another test's too
        assert ("refused", first) in {(answer.outcome, answer.model) for answer in answers}
        store.deploy(f"{CLASSIFIER}:damaged", "test")  # a new request is
        assert swap.is_due(store)

    def test_wanted_model_interrupts_the_backfill(self, settings, store, second):
        runtime = Runtime(settings)
        runtime._store = store
        store.deploy(second, "test")
        with pytest.raises(_Interrupted):
            runtime._between_batches()
