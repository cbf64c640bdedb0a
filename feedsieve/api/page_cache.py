"""A short-lived cache that coalesces concurrent identical requests (single flight)."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from feedsieve import metrics
from feedsieve.serving.admission import RETRY_SOON, Overloaded

MAX_WAIT = 20.0  # seconds for a turn; clients would not wait much longer
MAX_WAITING = 64  # different answers being computed or waiting for it


class Page(Protocol):
    """An answer that has a size."""

    @property
    def body(self) -> bytes | memoryview:
        """The content, whose length counts."""


Answer = TypeVar("Answer", bound=Page)


class PageCache(Generic[Answer]):
    """Caches answers for some time and limits how many are computed at once. For one event loop."""

    def __init__(self, seconds: float, most_bytes: int, at_once: int) -> None:
        """Cache answers of together `most_bytes`, for `seconds` from the start of each computation.

        At most `at_once` are computed at a time.
        """
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._turn = asyncio.Semaphore(at_once)
        self._computing: dict[Hashable, asyncio.Task[Answer]] = {}
        self._answers: dict[Hashable, tuple[float, Answer]] = {}  # with their start, oldest first
        self._bytes = 0  # of the answers

    async def get(
        self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Return the cached answer, the one being computed, or the result of `compute`.

        Errors of `compute` are raised for all waiting callers and not cached. Raises TimeoutError
        if it has to wait longer than `MAX_WAIT` for others, and Overloaded if too many wait.
        """
        cached = self._answers.get(key)
        task = self._computing.get(key)
        if cached and not self._is_expired(cached):
            metrics.CACHED_PAGES.inc()
            return cached[1]
        if task:
            metrics.CACHED_PAGES.inc()
        else:
            if len(self._computing) >= MAX_WAITING:
                raise Overloaded("too many pages are waited for", RETRY_SOON)
            metrics.RENDERED_PAGES.inc()
            task = asyncio.create_task(self._compute(key, compute))
            self._computing[key] = task
        return await asyncio.shield(task)  # other clients wait for it if this one disconnects

    async def _compute(
        self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        try:
            async with asyncio.timeout(MAX_WAIT):
                await self._turn.acquire()
            try:
                started, answer = time.monotonic(), await compute()
            finally:
                self._turn.release()
        finally:
            del self._computing[key]
        self._store(key, started, answer)
        return answer

    def _store(self, key: Hashable, started: float, answer: Answer) -> None:
        """Cache an answer; drop what is expired, and the oldest that are too many bytes."""
        self._drop(key)
        self._answers[key] = started, answer
        self._bytes += len(answer.body)
        while self._answers:
            oldest = next(iter(self._answers))
            if self._bytes <= self._most_bytes and not self._is_expired(self._answers[oldest]):
                return
            self._drop(oldest)

    def _drop(self, key: Hashable) -> None:
        if key in self._answers:
            self._bytes -= len(self._answers.pop(key)[1].body)

    def _is_expired(self, cached: tuple[float, Answer]) -> bool:
        return time.monotonic() - cached[0] >= self._seconds
