import asyncio
from types import SimpleNamespace

import pytest

from feedsieve.api.page_cache import PageCache
from feedsieve.serving.admission import Overloaded


class Number(int):
    """An answer of ten bytes."""

    body = b"0123456789"


class Waiting:
    """Returns once the event is set."""

    def __init__(self, end: asyncio.Event) -> None:
        self.end = end

    async def __call__(self):
        await self.end.wait()
        return Number(0)


class Counting:
    """Returns its number of calls, after a moment."""

    count = 0

    async def __call__(self):
        self.count += 1
        number = Number(self.count)
        await asyncio.sleep(0.02)
        return number


def test_concurrent_requests_share_one_answer_until_it_expires():
    async def run():
        cache, make = PageCache[int](seconds=0.3, most_bytes=1000, at_once=9), Counting()
        assert await asyncio.gather(*(cache.get("a", make) for _ in range(5))) == [1] * 5
        assert await cache.get("a", make) == 1
        assert await cache.get("b", make) == 2
        await asyncio.sleep(0.35)
        assert await cache.get("a", make) == 3

    asyncio.run(run())


def test_computations_are_bounded():
    running, most = 0, 0

    async def make():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Number(most)

    async def run():
        cache = PageCache[int](seconds=60, most_bytes=1000, at_once=2)
        await asyncio.gather(*(cache.get(question, make) for question in range(7)))

    asyncio.run(run())
    assert most == 2


def test_age_counts_from_the_start_of_the_computation(monkeypatch):
    now = 0.0
    monkeypatch.setattr("feedsieve.api.page_cache.time", SimpleNamespace(monotonic=lambda: now))

    async def run():
        nonlocal now
        cache, make, end = (
            PageCache[int](seconds=1, most_bytes=1000, at_once=1),
            Counting(),
            asyncio.Event(),
        )
        slow = asyncio.create_task(cache.get("slow", Waiting(end)))
        first = asyncio.create_task(cache.get("a", make))
        await asyncio.sleep(0)
        now = 5.0
        second = asyncio.create_task(cache.get("a", make))
        await asyncio.sleep(0)
        end.set()
        assert await asyncio.gather(slow, first, second) == [0, 1, 1]
        now = 5.9
        assert await cache.get("a", make) == 1
        now = 6.0
        assert await cache.get("a", make) == 2

    asyncio.run(run())


def test_failure_and_disconnect_release_their_turn():
    async def fail():
        raise KeyError

    async def run():
        cache, make = PageCache[int](seconds=60, most_bytes=1000, at_once=1), Counting()
        with pytest.raises(KeyError):
            await cache.get("a", fail)
        first, second = (asyncio.create_task(cache.get(name, make)) for name in "bc")
        await asyncio.sleep(0.01)
        first.cancel()
        second.cancel()
        assert await asyncio.wait_for(cache.get("d", make), 30) == 3

    asyncio.run(run())


def test_too_long_wait_raises_timeout(monkeypatch):
    monkeypatch.setattr("feedsieve.api.page_cache.MAX_WAIT", 0.05)

    async def run():
        cache, make, end = (
            PageCache[int](seconds=60, most_bytes=1000, at_once=1),
            Counting(),
            asyncio.Event(),
        )
        slow = asyncio.create_task(cache.get("slow", Waiting(end)))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await cache.get("a", make)
        end.set()
        await slow
        assert await cache.get("a", make) == 1

    asyncio.run(run())


def test_oldest_answers_are_evicted_first_by_their_bytes():
    async def run():
        cache, make = PageCache[int](seconds=60, most_bytes=25, at_once=9), Counting()
        assert [await cache.get(question, make) for question in "abac"] == [1, 2, 1, 3]
        assert [await cache.get(question, make) for question in "cba"] == [3, 2, 4]

    asyncio.run(run())


def test_bytes_are_bounded_for_answers_computed_together():
    async def run():
        cache, make = PageCache[int](seconds=60, most_bytes=25, at_once=9), Counting()
        await asyncio.gather(*(cache.get(question, make) for question in range(20)))
        assert len(cache._answers) == 2

    asyncio.run(run())


def test_expired_answers_are_dropped():
    async def run():
        cache, make = PageCache[int](seconds=0.05, most_bytes=1000, at_once=9), Counting()
        for question in range(10):
            await cache.get(question, make)
        await asyncio.sleep(0.1)
        await cache.get("another", make)
        assert list(cache._answers) == ["another"]

    asyncio.run(run())


def test_answers_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr("feedsieve.api.page_cache.MAX_WAITING", 3)

    async def run():
        cache, end = PageCache[int](seconds=60, most_bytes=1000, at_once=1), asyncio.Event()
        waiting = [asyncio.create_task(cache.get(name, Waiting(end))) for name in "abca"]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="too many pages"):
            await cache.get("d", Counting())
        end.set()
        assert await asyncio.gather(*waiting) == [0] * 4
        assert await cache.get("d", Counting()) == 1

    asyncio.run(run())


def test_failure_is_not_cached():
    async def fail():
        raise KeyError

    async def run():
        cache = PageCache[int](seconds=60, most_bytes=20, at_once=9)
        with pytest.raises(KeyError):
            await cache.get("a", fail)
        assert await cache.get("a", Counting()) == 1

    asyncio.run(run())


def test_disconnect_does_not_cancel_other_waiters():
    async def run():
        cache, make = PageCache[int](seconds=60, most_bytes=20, at_once=9), Counting()
        first, second = (asyncio.create_task(cache.get("a", make)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == 1

    asyncio.run(run())
