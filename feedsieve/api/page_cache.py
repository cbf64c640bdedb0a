"""A short-lived cache that coalesces concurrent identical requests (single flight)."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from feedsieve import metrics

MAX_WAIT = 20.0  # seconds for a turn; clients would not wait much longer


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
        self._tasks: dict[Hashable, asyncio.Task[tuple[float, Answer]]] = {}  # oldest first

    async def get(
        self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Return the cached answer, the one being computed, or the result of `compute`.

        Errors of `compute` are raised for all waiting callers and not cached. Raises TimeoutError
        if it has to wait longer than `MAX_WAIT` for others.
        """
        task = self._tasks.get(key)
        if task is not None and not self._is_expired(task):
            metrics.CACHED_PAGES.inc()
        else:
            metrics.RENDERED_PAGES.inc()
            self._evict()
            task = asyncio.create_task(self._compute(compute))
            self._tasks[key] = task
        if not task.done():
            await asyncio.shield(task)  # other clients wait for it if this one disconnects
        _started, answer = task.result()
        return answer

    def _evict(self) -> None:
        """Drop what is expired, and the oldest answers that are too many bytes together."""
        size = 0
        for key, task in reversed(list(self._tasks.items())):
            if self._is_expired(task):
                del self._tasks[key]
            elif task.done():
                size += len(task.result()[1].body)
                if size > self._most_bytes:
                    del self._tasks[key]

    async def _compute(
        self, compute: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> tuple[float, Answer]:
        async with asyncio.timeout(MAX_WAIT):
            await self._turn.acquire()
        try:
            return time.monotonic(), await compute()
        finally:
            self._turn.release()

    def _is_expired(self, task: asyncio.Task[tuple[float, Answer]]) -> bool:
        if not task.done():
            return False
        if task.cancelled() or task.exception() is not None:
            return True
        started, _answer = task.result()
        return time.monotonic() - started >= self._seconds
