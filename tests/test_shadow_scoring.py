"""A running server compares the wanted shadow with its model, and no request notices."""

import asyncio
import gc
import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from model_copies import CLASSIFIER, change, copy_pair, newest, shifted
from prometheus_client import REGISTRY
from serving import wait_until

from feedsieve.message import Message
from feedsieve.serving import runtime as runtime_module
from feedsieve.serving import shadow as shadow_module
from feedsieve.serving.runtime import Runtime
from feedsieve.serving.shadow import MAX_WAITING, is_sampled
from feedsieve.settings import Settings
from feedsieve.settings import settings as read_settings
from feedsieve.shadow_comparison import compare
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

SHIFT = 1.0
SECOND = f"{CLASSIFIER}:second"
SECRET = "секретный текст"


def hold(
    monkeypatch: pytest.MonkeyPatch, scorer: object, name: str
) -> tuple[threading.Event, threading.Event]:
    """Let a method wait; return the events that it was called, and that it may go on."""
    started, free = threading.Event(), threading.Event()
    method = getattr(scorer, name)

    def slow(*arguments, **options):
        started.set()
        assert free.wait(30)
        return method(*arguments, **options)

    monkeypatch.setattr(scorer, name, slow)
    return started, free


@pytest.fixture(scope="module")
def home(small_home, tmp_path_factory) -> Path:
    """A BENTOML_HOME with the small pair, a second one, and two that are refused."""
    home = tmp_path_factory.mktemp("shadow")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    for version in ("second", "tampered", "damaged"):
        copy_pair(home, version, SHIFT)
    reference = home / "models" / CLASSIFIER / "tampered" / "reference.json"
    scores = json.loads(reference.read_text(encoding="utf-8"))["scores"]
    change(reference, scores=[1 - score for score in scores])
    (home / "models" / CLASSIFIER / "damaged" / "booster.txt").write_text("tree\n")
    return home


@pytest.fixture(scope="module")
def first(home) -> str:
    return f"{CLASSIFIER}:{newest(home)}"


@pytest.fixture(scope="module")
def runtime(home, first, tmp_path_factory):
    """A runtime that looks into its store all the time."""
    location = tmp_path_factory.mktemp("shadow_store") / "messages.db"
    thresholds = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        patch.setenv("FEEDSIEVE_BACKEND", "onnxruntime-f32")  # none is timed
        for module, name in (
            (runtime_module, "POLL_INTERVAL"),
            (runtime_module, "CHECK_INTERVAL"),
            (shadow_module, "CHECK_INTERVAL"),
            (shadow_module, "POLL_INTERVAL"),
            (shadow_module, "SAVE_INTERVAL"),
        ):
            patch.setattr(module, name, 0.05)
        read_settings.cache_clear()
        runtime = Runtime(Settings(db=str(location), model=first, threads=1))
        runtime.start()
        try:
            wait_until(lambda: runtime.is_ready and runtime._store)
            yield runtime
        finally:
            runtime.stop()
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            read_settings.cache_clear()


@pytest.fixture
def store(runtime):
    """The runtime's store; the shadow is dropped after the test."""
    yield runtime.store
    runtime.store.set_shadow(None, 0.1, "test")
    wait_until(lambda: not runtime._shadow.is_loaded)


def texts(name: str, count: int) -> list[str]:
    return [f"Отдам {name} номер {number}" for number in range(count)]


def score(runtime: Runtime, several: list[str]) -> list[float]:
    return [one.score for one in asyncio.run(runtime.score(runtime.model, several))]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"feedsieve_shadow_{name}", labels)


def load(runtime: Runtime, tag: str = SECOND, share: float = 1.0) -> None:
    """Make `tag` the shadow, and wait until it is loaded."""
    runtime.store.set_shadow(tag, share, "test")
    wait_until(lambda: runtime._shadow.is_loaded)


def answer(runtime: Runtime):
    """Wait for the server's answer to the last shadow."""
    number = runtime.store.shadow().number
    wait_until(lambda: runtime.store.shadow_outcomes(number))
    return runtime.store.shadow_outcomes(number)[0]


def compared(store: MessageStore, first: str, several: list[str]) -> dict[str, float]:
    """Return the shadow's scores of the texts that were compared, by text."""
    found = {pair.fingerprint: pair.shadow_score for pair in store.pairs(first, SECOND)}
    keys = {text: fingerprint(text) for text in several}
    return {text: found[key] for text, key in keys.items() if key in found}


class TestSampling:
    def test_share_is_that_of_the_texts_and_grows_by_more_texts(self):
        keys = [fingerprint(str(number)) for number in range(4000)]
        tenth = {key for key in keys if is_sampled(key, 0.1)}
        half = {key for key in keys if is_sampled(key, 0.5)}
        assert 300 < len(tenth) < 500
        assert 1800 < len(half) < 2200
        assert tenth < half
        assert all(is_sampled(key, 1) for key in keys)

    def test_share_does_not_depend_on_the_order_of_fingerprints(self):
        """The backfill goes by them: its first texts are not all of the share."""
        keys = sorted(fingerprint(str(number)) for number in range(4000))
        assert 50 < sum(is_sampled(key, 0.2) for key in keys[:400]) < 110


class TestShadow:
    def test_share_of_requested_and_of_stored_texts_is_compared(self, runtime, store, first):
        cached, requested, stored = texts("кота", 8), texts("шкаф", 12), texts("стол", 12)
        live = dict(zip(cached, score(runtime, cached), strict=True))
        load(runtime, share=0.5)
        live |= zip(requested, score(runtime, requested), strict=True)
        score(runtime, cached + requested)
        store.add(Message(str(number), text) for number, text in enumerate(stored))
        everything = cached + requested + stored
        wanted = {text for text in everything if is_sampled(fingerprint(text), 0.5)}
        wait_until(lambda: compared(store, first, everything).keys() >= wanted)
        assert 5 < len(wanted) < 27
        live |= zip(stored, score(runtime, stored), strict=True)
        shadow = compared(store, first, everything)
        assert shadow.keys() == wanted
        expected = shifted(np.array([live[text] for text in shadow]), SHIFT)
        assert list(shadow.values()) == pytest.approx(expected, abs=0.01)

        pairs = store.pairs(first, SECOND)
        threshold = runtime.model.scorer.threshold
        assert all(pair.is_positive == (pair.score >= threshold) for pair in pairs)
        assert all(pair.shadow_is_positive == (pair.shadow_score >= 0.5) for pair in pairs)
        assert {pair.fingerprint: pair.score for pair in pairs} == {
            fingerprint(text): pytest.approx(live[text]) for text in wanted
        }
        wait_until(lambda: metric("pairs") == len(pairs))
        found = compare(pairs)
        assert metric("agreement") == found.agreement.value
        assert metric("shift") == pytest.approx(found.shift.value)
        assert metric("rank_correlation") == pytest.approx(found.rank_correlation.value)
        assert metric("loaded") == 1
        assert answer(runtime).reason is None
        files = Path(runtime._settings.db).parent.glob("messages.db*")
        content = b"".join(file.read_bytes() for file in files)
        assert stored[0].encode() in content
        assert not [text for text in requested if text.encode() in content]

    def test_request_does_not_wait_for_the_shadow(self, runtime, store, monkeypatch):
        load(runtime)
        started, free = hold(monkeypatch, runtime._shadow._scorer, "score")
        score(runtime, texts("диван", 1))
        assert started.wait(30)
        score(runtime, texts("кресло", 3))
        assert runtime._shadow.is_loaded and len(runtime._shadow._waiting) == 3
        free.set()

    def test_shadow_waits_for_requests(self, runtime, store, first, monkeypatch):
        load(runtime)
        served = runtime.model.scorer
        started, free = hold(monkeypatch, served, "score_texts")
        waiting = texts("лампу", 4)
        request = threading.Thread(target=score, args=(runtime, texts("ковёр", 1)))
        request.start()
        assert started.wait(30)
        keys = {fingerprint(text): text for text in waiting}
        runtime._shadow.offer(served, keys, dict.fromkeys(keys, 0.5))
        time.sleep(0.3)  # as long as six looks
        assert len(runtime._shadow._waiting) == len(waiting)
        free.set()
        request.join(30)
        wait_until(lambda: len(compared(store, first, waiting)) == len(waiting))

    def test_texts_that_the_shadow_cannot_keep_up_with_are_dropped_and_counted(
        self, runtime, store
    ):
        load(runtime)
        before = metric("texts_total", outcome="dropped")
        several = {fingerprint(text): text for text in texts("книгу", MAX_WAITING + 9)}
        several[fingerprint("длинный")] = "длинный " * 3000
        with runtime._shadow.request():
            wait_until(lambda: not runtime._shadow._waiting)
            runtime._shadow.offer(runtime.model.scorer, several, dict.fromkeys(several, 0.5))
            assert len(runtime._shadow._waiting) in (MAX_WAITING, MAX_WAITING - 1)
            runtime._shadow._waiting.clear()
        assert 9 <= metric("texts_total", outcome="dropped") - before <= 10

    @pytest.mark.parametrize(
        ("version", "reason"),
        [
            ("tampered", "a score differs by"),
            ("damaged", "not a complete LightGBM model"),
            ("absent", "the model store has no feedsieve-classifier:absent"),
        ],
    )
    def test_bad_shadow_is_refused_and_requests_are_answered(
        self, runtime, store, caplog, version, reason
    ):
        before = metric("loads_total", outcome="refused")
        store.set_shadow(f"{CLASSIFIER}:{version}", 1, "test")
        assert reason in answer(runtime).reason
        assert len(score(runtime, texts(version, 2))) == 2
        time.sleep(0.2)
        assert metric("loads_total", outcome="refused") == before + 1  # not tried again
        [line] = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert f"the shadow {CLASSIFIER}:{version} refused: " in line and "\n" not in line
        assert (metric("loaded"), runtime._shadow.is_loaded) == (0, False)

    def test_shadow_that_fails_ends_without_the_text_in_its_reason(
        self, runtime, store, monkeypatch
    ):
        load(runtime)

        def fail(several, eager):
            raise MemoryError(several[0])

        monkeypatch.setattr(runtime._shadow._scorer, "score", fail)
        assert len(score(runtime, [SECRET])) == 1
        wait_until(lambda: not runtime._shadow.is_loaded)
        wait_until(lambda: answer(runtime).reason)
        assert answer(runtime).reason == "MemoryError while it scored a text"
        assert len(score(runtime, texts("вазу", 2))) == 2
        load(runtime)  # a new request for it is followed

    def test_shadow_in_service_is_not_compared_until_it_is_rolled_back(self, runtime, store, first):
        load(runtime)
        store.deploy(SECOND, "test")
        wait_until(lambda: runtime.model.scorer.model == SECOND)
        wait_until(lambda: not runtime._shadow.is_loaded)
        score(runtime, texts("зонт", 2))
        store.roll_back("test")
        wait_until(lambda: runtime.model.scorer.model == first)
        wait_until(lambda: runtime._shadow.is_loaded)
        assert store.pairs(SECOND, SECOND) == []

    def test_last_scores_are_saved_when_the_server_stops(self, runtime, store, first, monkeypatch):
        """The last test: it ends the runtime."""
        load(runtime)
        monkeypatch.setattr(shadow_module, "SAVE_INTERVAL", 600)
        time.sleep(0.2)
        several = texts("велосипед", 3)
        before = metric("texts_total", outcome="compared")
        score(runtime, several)
        wait_until(lambda: metric("texts_total", outcome="compared") == before + 3)
        assert compared(store, first, several) == {}
        runtime.stop()
        runtime._shadow.thread.join(10)
        assert len(compared(store, first, several)) == 3
        again = Runtime(runtime._settings)._shadow
        assert not again.is_loaded
        runtime._shadow._unload()
