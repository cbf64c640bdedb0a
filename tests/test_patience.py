import asyncio
import threading

import pytest
from test_waiting import enter

from feedsieve.patience import EACH, READ, SPEED_AT_FIRST, Patience, TooMuch
from feedsieve.runtime import Runtime
from feedsieve.settings import Settings

TEXT = ["x" * READ]  # as much as the encoder reads of one
SIZE = EACH + READ


def test_as_much_may_wait_as_is_read_in_time():
    patience = Patience(2 * SIZE / SPEED_AT_FIRST)
    with enter(patience, TEXT, TEXT), pytest.raises(TooMuch, match="too much waits"):
        enter(patience, ["x"])
    enter(patience, TEXT)


def test_what_waits_for_nobody_is_let_in_however_much_it_is():
    patience = Patience(0.0)
    with enter(patience, TEXT * 256), pytest.raises(TooMuch):
        enter(patience, TEXT)


def test_what_the_encoder_does_not_read_does_not_count():
    patience = Patience(2 * SIZE / SPEED_AT_FIRST)
    with enter(patience, TEXT, ["x" * 10 * READ]), pytest.raises(TooMuch):
        enter(patience, ["x"])


def test_it_goes_by_how_fast_the_last_ones_were_read():
    patience = Patience(1.0)
    for _ in range(100):
        patience.learn(TEXT * 10, 5.0)
    with enter(patience, TEXT):  # two of these are read in a second
        enter(patience, ["x" * (READ - 50)]).close()
        with pytest.raises(TooMuch):
            enter(patience, ["x"] * 10, ["x" * (READ - 50)])
    for _ in range(100):
        patience.learn(TEXT * 10, 0.5)
    with enter(patience, TEXT * 10):
        enter(patience, TEXT * 9).close()


def test_who_reads_word_by_word_is_not_taken_for_slow():
    """Four milliseconds for two letters are no measure of how long a page takes."""
    quick, slow = Patience(40.0), Patience(40.0)
    for _ in range(1000):
        quick.learn(["да"], 0.004)
        slow.learn(["да"], 0.4)
    with enter(quick, TEXT * 256, TEXT * 256), pytest.raises(TooMuch):
        enter(slow, TEXT, TEXT * 256)


def test_who_fails_or_goes_waits_no_longer():
    patience = Patience(0.0)
    for _ in range(2):
        with pytest.raises(KeyError), patience.place(TEXT):
            raise KeyError


def test_a_request_that_would_wait_too_long_is_refused_and_the_next_is_not(tmp_path, monkeypatch):
    reading = threading.Event()
    monkeypatch.setattr("feedsieve.runtime.LONGEST_WAIT", 0.0)
    runtime = Runtime(Settings(db=str(tmp_path / "new.db")))
    monkeypatch.setattr(runtime._scoring, "_do", compute := Computing(reading))

    async def run():
        first = asyncio.create_task(runtime.score(["first"]))
        await asyncio.sleep(0.05)
        with pytest.raises(TooMuch):
            await runtime.score(["second"])
        reading.set()
        assert await first == [0.5]
        assert await runtime.score(["third"]) == [0.5]
        assert compute.read == ["first", "third"]

    asyncio.run(run())


class Computing:
    """Reads once it may."""

    def __init__(self, may: threading.Event) -> None:
        self.may = may
        self.read: list[str] = []

    def __call__(self, requests, _let_next):
        self.may.wait(10)
        texts = {mark: text for request in requests for mark, text in request.items()}
        self.read += texts.values()
        return dict.fromkeys(texts, 0.5)
