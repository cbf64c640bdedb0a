import asyncio
from types import SimpleNamespace

import pytest

from feedsieve.recent import Recent


class Counting:
    """Answers with how often it was asked, after a moment."""

    count = 0

    async def __call__(self):
        self.count += 1
        number = self.count
        await asyncio.sleep(0.02)
        return number


def test_what_many_ask_for_at_once_is_made_once_and_kept_for_its_time():
    async def run():
        recent, make = Recent[int](seconds=0.3, most=10, at_once=9), Counting()
        assert await asyncio.gather(*(recent.answer("a", make) for _ in range(5))) == [1] * 5
        assert await recent.answer("a", make) == 1
        assert await recent.answer("b", make) == 2
        await asyncio.sleep(0.35)
        assert await recent.answer("a", make) == 3

    asyncio.run(run())


def test_no_more_than_a_few_are_made_at_a_time():
    begun, most = 0, 0

    async def make():
        nonlocal begun, most
        begun += 1
        most = max(most, begun)
        await asyncio.sleep(0.01)
        begun -= 1
        return most

    async def run():
        recent = Recent[int](seconds=60, most=10, at_once=2)
        await asyncio.gather(*(recent.answer(question, make) for question in range(7)))

    asyncio.run(run())
    assert most == 2


def test_what_waits_for_its_turn_is_not_asked_for_again_and_is_young_when_it_had_it(monkeypatch):
    now = 0.0
    monkeypatch.setattr("feedsieve.recent.time", SimpleNamespace(monotonic=lambda: now))

    async def run():
        nonlocal now
        recent, make, end = Recent[int](seconds=1, most=10, at_once=1), Counting(), asyncio.Event()
        slow = asyncio.create_task(recent.answer("slow", end.wait))
        first = asyncio.create_task(recent.answer("a", make))
        await asyncio.sleep(0)
        now = 5.0
        second = asyncio.create_task(recent.answer("a", make))
        await asyncio.sleep(0)
        end.set()
        assert await asyncio.gather(slow, first, second) == [True, 1, 1]
        now = 5.9
        assert await recent.answer("a", make) == 1
        now = 6.0
        assert await recent.answer("a", make) == 2

    asyncio.run(run())


def test_a_failure_and_one_that_goes_give_their_turn_back():
    async def fail():
        raise KeyError

    async def run():
        recent, make = Recent[int](seconds=60, most=10, at_once=1), Counting()
        with pytest.raises(KeyError):
            await recent.answer("a", fail)
        first, second = (asyncio.create_task(recent.answer(name, make)) for name in "bc")
        await asyncio.sleep(0.01)
        first.cancel()
        second.cancel()
        assert await asyncio.wait_for(recent.answer("d", make), 30) == 3

    asyncio.run(run())


def test_who_would_have_to_wait_too_long_is_told(monkeypatch):
    monkeypatch.setattr("feedsieve.recent.LONGEST_WAIT", 0.05)

    async def run():
        recent, make, end = Recent[int](seconds=60, most=10, at_once=1), Counting(), asyncio.Event()
        slow = asyncio.create_task(recent.answer("slow", end.wait))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await recent.answer("a", make)
        end.set()
        assert await slow
        assert await recent.answer("a", make) == 1

    asyncio.run(run())


def test_the_oldest_goes_first():
    async def run():
        recent, make = Recent[int](seconds=60, most=2, at_once=9), Counting()
        assert [await recent.answer(question, make) for question in "abac"] == [1, 2, 1, 3]
        assert [await recent.answer(question, make) for question in "cba"] == [3, 2, 4]

    asyncio.run(run())


def test_a_failure_is_not_kept():
    async def fail():
        raise KeyError

    async def run():
        recent = Recent[int](seconds=60, most=2, at_once=9)
        with pytest.raises(KeyError):
            await recent.answer("a", fail)
        assert await recent.answer("a", Counting()) == 1

    asyncio.run(run())


def test_who_goes_does_not_take_it_from_the_others():
    async def run():
        recent, make = Recent[int](seconds=60, most=2, at_once=9), Counting()
        first, second = (asyncio.create_task(recent.answer("a", make)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == 1

    asyncio.run(run())
