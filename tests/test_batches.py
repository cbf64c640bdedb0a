import asyncio
import threading
from collections import defaultdict

import pytest

from feedsieve.batches import Batches


class Doubling:
    """Doubles numbers once it is let, and remembers what came together."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.done: list[list[int]] = []

    def __call__(self, requests, let_next):
        self.free.wait(10)
        self.done.append([number for request in requests for number in request])
        return {number: 2 * number for number in self.done[-1]}


async def answers(batches, *requests):
    """Return tasks that wait for the answers, of which the first has begun."""
    tasks = [asyncio.create_task(batches.answer(requests[0]))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(batches.answer(request)) for request in requests[1:]]
    await asyncio.sleep(0.05)
    return tasks


def test_what_comes_meanwhile_is_done_together():
    async def run():
        doubling = Doubling()
        tasks = await answers(Batches("test", doubling, 10), [1], [2, 3], [4])
        doubling.free.set()
        assert [(await task)[number] for task, number in zip(tasks, (1, 3, 4), strict=True)] == [
            2,
            6,
            8,
        ]
        assert doubling.done == [[1], [2, 3, 4]]

    asyncio.run(run())


def test_no_batch_is_larger_than_allowed_but_for_a_single_request():
    async def run():
        doubling = Doubling()
        tasks = await answers(Batches("test", doubling, 3), [1], [2, 3], [4], [5, 6, 7, 8], [9])
        doubling.free.set()
        await asyncio.gather(*tasks)
        assert doubling.done == [[1], [2, 3, 4], [5, 6, 7, 8], [9]]

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_done():
    async def run():
        doubling = Doubling()
        first, second, third = await answers(Batches("test", doubling, 10), [1], [2], [3])
        first.cancel()  # it has begun; the others are done all the same
        second.cancel()
        await asyncio.sleep(0)
        doubling.free.set()
        assert (await third)[3] == 6
        assert doubling.done == [[1], [3]]

    asyncio.run(run())


def test_an_error_reaches_those_of_the_batch_and_nobody_else():
    def invert(requests, _let_next):
        return {number: 1 / number for request in requests for number in request}

    async def run():
        batches = Batches("test", invert, 10)
        with pytest.raises(ZeroDivisionError):
            await batches.answer([0])
        assert await batches.answer([2]) == {2: 0.5}

    asyncio.run(run())


class Steps:
    """Single numbers, for each of which the test says when it lets the next and when it ends."""

    def __init__(self, *unlet: int) -> None:
        """Those that are `unlet` let nobody."""
        self.unlet = unlet
        self.begun: list[int] = []
        self.let: dict[int, threading.Event] = defaultdict(threading.Event)
        self.end: dict[int, threading.Event] = defaultdict(threading.Event)

    def __call__(self, requests, let_next):
        [[number]] = requests
        self.begun.append(number)
        if number not in self.unlet:
            self.let[number].wait(10)
            let_next()
            let_next()  # again: changes nothing
        self.end[number].wait(10)
        return number


def test_the_next_batch_begins_as_soon_as_it_is_let():
    async def run():
        steps = Steps(2)
        tasks = await answers(Batches("test", steps, 1), [1], [2], [3])
        assert steps.begun == [1]
        steps.let[1].set()
        await asyncio.sleep(0.05)
        assert steps.begun == [1, 2]
        steps.end[1].set()  # which lets nobody: the third waits for the second
        assert await tasks[0] == 1
        await asyncio.sleep(0.05)
        assert steps.begun == [1, 2]
        steps.end[2].set()
        assert await tasks[1] == 2
        steps.let[3].set()
        steps.end[3].set()
        assert await tasks[2] == 3

    asyncio.run(run())


def test_there_are_never_three_at_once():
    async def run():
        steps = Steps()
        for number in range(4):
            steps.let[number].set()
        tasks = await answers(Batches("test", steps, 1), [0], [1], [2], [3])
        assert steps.begun == [0, 1]
        tasks[2].cancel()  # it has not begun, so it never does
        await asyncio.sleep(0)
        for number in range(4):
            steps.end[number].set()
        assert [await tasks[0], await tasks[1], await tasks[3]] == [0, 1, 3]
        assert steps.begun == [0, 1, 3]

    asyncio.run(run())


def test_without_being_let_it_waits():
    async def run():
        begun = []
        free = threading.Event()

        def do(requests, _let_next):
            begun.append(requests)
            free.wait(10)

        tasks = await answers(Batches("test", do, 10), [1], [2])
        assert begun == [[[1]]]
        free.set()
        await asyncio.gather(*tasks)
        assert begun == [[[1]], [[2]]]

    asyncio.run(run())


def test_where_no_thread_can_be_started_requests_fail_and_later_ones_do_not(monkeypatch):
    async def run():
        doubling = Doubling()
        doubling.free.set()
        batches = Batches("test", doubling, 10)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", full)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await asyncio.wait_for(batches.answer([1]), 5)
        assert (await asyncio.wait_for(batches.answer([2]), 5))[2] == 4

    def full(_thread):
        raise RuntimeError("can't start new thread")

    asyncio.run(run())
