import asyncio
import gc
import threading
import weakref
from collections import defaultdict

import pytest

from feedsieve.serving.batcher import DynamicBatcher


class Doubling:
    """Doubles numbers once `free` is set, and records the batches."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.done: list[list[int]] = []

    def __call__(self, requests, let_next):
        self.free.wait(10)
        self.done.append([number for request in requests for number in request])
        return {number: 2 * number for number in self.done[-1]}


async def answers(batches, *requests):
    """Submit requests; return tasks for their answers. The first request is running."""
    tasks = [asyncio.create_task(batches.submit(requests[0]))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(batches.submit(request)) for request in requests[1:]]
    await asyncio.sleep(0.05)
    return tasks


def test_waiting_requests_are_computed_together():
    async def run():
        doubling = Doubling()
        tasks = await answers(DynamicBatcher("test", doubling, 10), [1], [2, 3], [4])
        doubling.free.set()
        assert [(await task)[number] for task, number in zip(tasks, (1, 3, 4), strict=True)] == [
            2,
            6,
            8,
        ]
        assert doubling.done == [[1], [4, 2, 3]]  # smaller ones first

    asyncio.run(run())


def test_batches_are_bounded_except_for_one_large_request():
    async def run():
        doubling = Doubling()
        tasks = await answers(
            DynamicBatcher("test", doubling, 3), [1], [2, 3], [4], [5, 6, 7, 8], [9]
        )
        doubling.free.set()
        await asyncio.gather(*tasks)
        assert doubling.done == [[1], [4, 9], [2, 3], [5, 6, 7, 8]]

    asyncio.run(run())


def test_cancelled_request_is_not_computed():
    async def run():
        doubling = Doubling()
        first, second, third = await answers(DynamicBatcher("test", doubling, 10), [1], [2], [3])
        first.cancel()  # it runs already; the others are computed
        second.cancel()
        await asyncio.sleep(0)
        doubling.free.set()
        assert (await third)[3] == 6
        assert doubling.done == [[1], [3]]

    asyncio.run(run())


def test_error_is_raised_for_its_batch_only():
    def invert(requests, _let_next):
        return {number: 1 / number for request in requests for number in request}

    async def run():
        batches = DynamicBatcher("test", invert, 10)
        with pytest.raises(ZeroDivisionError):
            await batches.submit([0])
        assert await batches.submit([2]) == {2: 0.5}

    asyncio.run(run())


class Steps:
    """Computes single numbers; the test decides when each allows the next batch, and ends."""

    def __init__(self, *blocking: int) -> None:
        """Numbers in `blocking` never allow the next batch."""
        self.blocking = blocking
        self.started: list[int] = []
        self.let: dict[int, threading.Event] = defaultdict(threading.Event)
        self.end: dict[int, threading.Event] = defaultdict(threading.Event)

    def __call__(self, requests, let_next):
        [[number]] = requests
        self.started.append(number)
        if number not in self.blocking:
            self.let[number].wait(10)
            let_next()
            let_next()  # again: changes nothing
        self.end[number].wait(10)
        return number


def test_next_batch_starts_when_the_first_allows_it():
    async def run():
        steps = Steps(2)
        tasks = await answers(DynamicBatcher("test", steps, 1), [1], [2], [3])
        assert steps.started == [1]
        steps.let[1].set()
        await asyncio.sleep(0.05)
        assert steps.started == [1, 2]
        steps.end[1].set()  # the third still waits for the second
        assert await tasks[0] == 1
        await asyncio.sleep(0.05)
        assert steps.started == [1, 2]
        steps.end[2].set()
        assert await tasks[1] == 2
        steps.let[3].set()
        steps.end[3].set()
        assert await tasks[2] == 3

    asyncio.run(run())


def test_at_most_two_batches_run():
    async def run():
        steps = Steps()
        for number in range(4):
            steps.let[number].set()
        tasks = await answers(DynamicBatcher("test", steps, 1), [0], [1], [2], [3])
        assert steps.started == [0, 1]
        tasks[2].cancel()  # before it starts
        await asyncio.sleep(0)
        for number in range(4):
            steps.end[number].set()
        assert [await tasks[0], await tasks[1], await tasks[3]] == [0, 1, 3]
        assert steps.started == [0, 1, 3]

    asyncio.run(run())


def test_next_batch_waits_unless_allowed():
    async def run():
        started = []
        free = threading.Event()

        def do(requests, _let_next):
            started.append(requests)
            free.wait(10)

        tasks = await answers(DynamicBatcher("test", do, 10), [1], [2])
        assert started == [[[1]]]
        free.set()
        await asyncio.gather(*tasks)
        assert started == [[[1]], [[2]]]

    asyncio.run(run())


def test_batch_fails_if_no_thread_starts_and_the_next_succeeds(monkeypatch):
    async def run():
        doubling = Doubling()
        doubling.free.set()
        batches = DynamicBatcher("test", doubling, 10)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", full)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await asyncio.wait_for(batches.submit([1]), 5)
        assert (await asyncio.wait_for(batches.submit([2]), 5))[2] == 4

    def full(_thread):
        raise RuntimeError("can't start new thread")

    asyncio.run(run())


def test_pieces_of_a_large_request_take_turns_with_other_requests():
    async def run():
        doubling = Doubling()
        batches = DynamicBatcher("test", doubling, 2)
        first = asyncio.create_task(batches.submit([0]))
        await asyncio.sleep(0.05)  # it is running
        large = [
            asyncio.create_task(batches.submit([number], 2, ahead))
            for number, ahead in ((1, 0), (2, 2), (3, 4), (4, 6))
        ]
        await asyncio.sleep(0)
        small = asyncio.create_task(batches.submit([9]))
        await asyncio.sleep(0.05)
        doubling.free.set()
        await asyncio.gather(first, small, *large)
        assert doubling.done == [[0], [9], [1], [2], [3], [4]]

    asyncio.run(run())


def test_two_large_requests_take_turns():
    async def run():
        doubling = Doubling()
        batches = DynamicBatcher("test", doubling, 1)
        tasks = [asyncio.create_task(batches.submit([0]))]
        await asyncio.sleep(0.05)
        tasks += [
            asyncio.create_task(batches.submit([client + ahead], 1, ahead))
            for client in (10, 20)
            for ahead in range(3)
        ]
        await asyncio.sleep(0.05)
        doubling.free.set()
        await asyncio.gather(*tasks)
        assert doubling.done == [[0], [10], [20], [11], [21], [12], [22]]

    asyncio.run(run())


def test_large_request_is_not_starved_by_small_ones():
    async def run():
        batches = DynamicBatcher("test", lambda requests, _let_next: None, 10)
        small = 0

        async def keep_asking():
            nonlocal small
            while not large.done():
                await batches.submit([0], 1)
                small += 1

        large = asyncio.gather(*(batches.submit([1], 5, ahead) for ahead in range(0, 50, 5)))
        await asyncio.wait_for(asyncio.gather(large, *(keep_asking() for _ in range(32))), 10)
        assert small < 32 * 60  # each of them has its share, as the large one has

    asyncio.run(run())


def test_cancelled_request_is_forgotten_at_once():
    async def run():
        doubling = Doubling()
        batches = DynamicBatcher("test", doubling, 1)
        running = asyncio.create_task(batches.submit([0]))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(batches.submit(request := Forgettable([1])))
        await asyncio.sleep(0.05)
        reference = weakref.ref(request)
        del request
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
        gc.collect()
        assert reference() is None
        doubling.free.set()
        await running

    asyncio.run(run())


class Forgettable(list):
    """A list that can be referred to weakly."""


def test_request_that_arrives_later_does_not_overtake_all_of_an_earlier_one():
    async def run():
        doubling = Doubling()
        batches = DynamicBatcher("test", doubling, 1)
        doubling.free.set()
        await asyncio.gather(*(batches.submit([0], 1, ahead) for ahead in range(5)))
        doubling.free.clear()
        running = asyncio.create_task(batches.submit([1]))
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(batches.submit([number])) for number in (2, 3)]
        await asyncio.sleep(0.05)
        doubling.free.set()
        await asyncio.gather(running, *tasks)
        assert doubling.done[5:] == [[1], [2], [3]]

    asyncio.run(run())
