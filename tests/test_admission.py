import asyncio
import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsieve.serving.admission import (
    CHARACTERS_EACH,
    CHARACTERS_READ,
    FIRST_SPEED,
    MAX_PIECE,
    SMALL_BODY,
    AdmissionControl,
    Overloaded,
    cost,
)
from feedsieve.serving.runtime import Runtime
from feedsieve.serving.served_model import BATCH_SECONDS, ServedModel, _pieces
from feedsieve.settings import Settings
from feedsieve.text import fingerprint

TEXT = ["x" * CHARACTERS_READ]  # as much of a text as the encoder reads
COST = CHARACTERS_EACH + CHARACTERS_READ


def control(requests: int = 10, size: int = 100, seconds: float = 1.0) -> AdmissionControl:
    return AdmissionControl(requests, size, seconds)


def admit(*places) -> ExitStack:
    """Return admitted requests; closing it ends them."""
    admitted = ExitStack()
    for place in places:
        admitted.enter_context(place)
    return admitted


class TestRequests:
    def test_number_is_bounded_until_requests_end(self):
        admission = control(requests=2)
        with (
            admit(admission.request("scored"), admission.request("scored")),
            pytest.raises(Overloaded, match="too many requests") as rejected,
        ):
            admit(admission.request("scored"))
        assert rejected.value.retry_after == 1
        admit(admission.request("scored"), admission.request("scored"))

    def test_requests_that_wait_for_the_store_take_no_place_of_scoring(self):
        admission = control(requests=1)
        with admission.request("stored"):
            with admission.request("scored"):
                pass
            with pytest.raises(Overloaded, match="too many requests wait to be stored"):
                admit(admission.request("stored"))

    def test_check_takes_no_place(self):
        admission = control(requests=1)
        admission.check("scored")
        with admission.request("scored"), pytest.raises(Overloaded):
            admission.check("scored")

    def test_failed_request_is_released(self):
        admission = control(requests=1)
        for _ in range(2):
            with pytest.raises(KeyError), admission.request("scored"):
                raise KeyError


class TestBodies:
    def test_bytes_are_counted_as_they_arrive_until_the_request_ends(self):
        admission = control(size=4 * SMALL_BODY)
        large = 2 * SMALL_BODY
        for _ in range(2):
            with admission.body() as first, admission.body() as second:
                first.add(large)
                second.add(SMALL_BODY)
                with pytest.raises(Overloaded, match="too many bytes"):
                    second.add(1)
                assert (first.bytes, second.bytes) == (large, SMALL_BODY)

    def test_large_bodies_leave_room_for_small_ones(self):
        admission = control(size=4 * SMALL_BODY)
        with admission.body() as large, admission.body() as small:
            large.add(3 * SMALL_BODY)
            small.add(SMALL_BODY)
            with admission.body() as another, pytest.raises(Overloaded):
                another.add(1)


class TestScoring:
    def test_texts_are_bounded_by_estimated_time(self):
        admission = control(seconds=2 * COST / FIRST_SPEED)
        with (
            admit(admission.scoring(TEXT), admission.scoring(TEXT)),
            pytest.raises(Overloaded, match="too many texts wait to be scored") as rejected,
        ):
            admit(admission.scoring(["x"]))
        assert rejected.value.retry_after == 5
        admit(admission.scoring(TEXT))

    def test_any_amount_is_admitted_if_nothing_waits(self):
        admission = control(seconds=0.0)
        with admit(admission.scoring(TEXT * 256)), pytest.raises(Overloaded):
            admit(admission.scoring(TEXT * 256))

    def test_a_few_texts_are_admitted_whatever_waits_of_large_requests(self):
        admission = control(seconds=2 * COST / FIRST_SPEED)
        large, few = TEXT * 3, TEXT * 2
        with admit(admission.scoring(large)):
            with pytest.raises(Overloaded):
                admit(admission.scoring(large))
            with admit(admission.scoring(few)), pytest.raises(Overloaded):
                admit(admission.scoring(["x"]))
            admit(admission.scoring(few)).close()
        with admit(admission.scoring(few)), pytest.raises(Overloaded):
            admit(admission.scoring(large))

    def test_text_beyond_what_the_encoder_reads_costs_nothing(self):
        admission = control(seconds=2 * COST / FIRST_SPEED)
        with (
            admit(admission.scoring(TEXT), admission.scoring(["x" * 10 * CHARACTERS_READ])),
            pytest.raises(Overloaded),
        ):
            admit(admission.scoring(["x"]))

    def test_estimate_follows_the_measured_speed(self):
        admission = control(seconds=1.0)
        for _ in range(100):
            admission.measured(TEXT * 10, 5.0)
        almost = ["x" * (CHARACTERS_READ - 50)]
        with admit(admission.scoring(TEXT)):  # two of these are scored in a second
            admit(admission.scoring(almost)).close()
            with pytest.raises(Overloaded):
                admit(admission.scoring(["x"] * 10), admission.scoring(almost))
        for _ in range(100):
            admission.measured(TEXT * 10, 0.5)
        with admit(admission.scoring(TEXT * 10)):
            admit(admission.scoring(TEXT * 9)).close()

    def test_short_texts_do_not_make_the_estimate_slow(self):
        """The time for two letters does not predict that for a page."""
        quick, slow = control(seconds=40.0), control(seconds=40.0)
        for _ in range(1000):
            quick.measured(["да"], 0.004)
            slow.measured(["да"], 0.4)
        with (
            admit(quick.scoring(TEXT * 256), quick.scoring(TEXT * 256)),
            pytest.raises(Overloaded),
        ):
            admit(slow.scoring(TEXT), slow.scoring(TEXT * 256))

    def test_failed_texts_are_released(self):
        admission = control(seconds=0.0)
        for _ in range(2):
            with pytest.raises(KeyError), admission.scoring(TEXT):
                raise KeyError


def test_runtime_rejects_what_would_wait_too_long_and_admits_the_next(tmp_path, monkeypatch):
    reading = threading.Event()
    monkeypatch.setattr("feedsieve.serving.runtime.MAX_WAIT", 0.0)
    runtime = Runtime(Settings(db=str(tmp_path / "new.db")))
    model = ServedModel(None, 0, compute := Computing(reading))

    async def run():
        first = asyncio.create_task(runtime.score(model, ["first"]))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await runtime.score(model, ["second"])
        reading.set()
        assert await first == [0.5]
        assert await runtime.score(model, ["third"]) == [0.5]
        assert compute.read == ["first", "third"]

    asyncio.run(run())


@pytest.mark.parametrize(("count", "on_loop"), [(1, True), (5, True), (6, False)])
def test_many_characters_are_normalised_in_a_thread(tmp_path, monkeypatch, count, on_loop):
    threads = set()

    def record(text):
        threads.add(threading.current_thread())
        return fingerprint(text)

    monkeypatch.setattr("feedsieve.serving.score_cache.fingerprint", record)
    runtime = Runtime(Settings(db=str(tmp_path / "new.db")))
    may = threading.Event()
    may.set()
    model = ServedModel(None, 0, Computing(may))
    texts = [str(number).ljust(400, ".") for number in range(count)]
    assert asyncio.run(runtime.score(model, texts)) == [0.5] * count
    assert (threads == {threading.current_thread()}) == on_loop


class Computing:
    """Scores once the event is set."""

    def __init__(self, may: threading.Event) -> None:
        self.may = may
        self.read: list[str] = []

    def __call__(self, _scorer, _cache, _speed, requests, _let_next):
        self.may.wait(10)
        texts = {key: text for request in requests for key, text in request.items()}
        self.read += texts.values()
        return dict.fromkeys(texts, 0.5)


LONG = "сдаётся квартира у моря " * 50


def test_large_request_is_scored_in_pieces_and_small_ones_go_between(tmp_path):
    may = threading.Event()
    runtime = Runtime(Settings(db=str(tmp_path / "new.db")))
    model = ServedModel(None, 0, compute := Computing(may))
    texts = [f"{number} {LONG}" for number in range(20)]

    async def run():
        large = asyncio.create_task(runtime.score(model, texts))
        await asyncio.sleep(0.05)  # its first piece is being scored
        small = asyncio.create_task(runtime.score(model, ["small"]))
        await asyncio.sleep(0.05)
        may.set()
        assert await small == [0.5]
        assert await large == [0.5] * 20

    asyncio.run(run())
    assert sorted(compute.read) == sorted([*texts, "small"])
    assert compute.read.index("small") <= 2 * MAX_PIECE // COST


def test_rest_of_a_large_request_is_dropped_when_its_client_leaves(tmp_path):
    may = threading.Event()
    runtime = Runtime(Settings(db=str(tmp_path / "new.db")))
    model = ServedModel(None, 0, compute := Computing(may))

    async def run():
        large = asyncio.create_task(runtime.score(model, [f"{n} {LONG}" for n in range(20)]))
        await asyncio.sleep(0.05)
        large.cancel()
        await asyncio.sleep(0)
        may.set()
        assert await runtime.score(model, ["small"]) == [0.5]

    asyncio.run(run())
    assert compute.read[-1] == "small"
    assert len(compute.read) <= BATCH_SECONDS * FIRST_SPEED // COST + 1  # a batch, and that one


@given(
    st.lists(st.text(max_size=3000), min_size=1, max_size=60, unique=True),
    st.sampled_from([0.5, 700.0, MAX_PIECE]),
)
def test_pieces_have_every_text_once(texts, most):
    by_key = {str(number): text for number, text in enumerate(texts)}
    pieces = _pieces(by_key, most)
    assert {key: text for piece in pieces for key, text in piece.items()} == by_key
    assert sum(map(len, pieces)) == len(texts)
    assert all(len(piece) == 1 or cost(piece.values()) <= most for piece in pieces)
