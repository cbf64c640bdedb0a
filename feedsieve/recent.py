"""Answers that are good for a moment: what many ask for at once is made once."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Keeps answers for some time, and makes a few at once. For one event loop."""

    def __init__(self, seconds: float, most: int, at_once: int) -> None:
        """Keep at most `most` answers, for `seconds` each, and make at most `at_once` at a time."""
        self._seconds = seconds
        self._most = most
        self._turn = asyncio.Semaphore(at_once)
        self._made: dict[Hashable, tuple[float, asyncio.Task[Answer]]] = {}  # oldest first

    async def answer(
        self, question: Hashable, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Return the answer that is young enough or being made, or else what `make` returns.

        What `make` raises is raised for all who wait for it, and is not kept.
        """
        made, task = self._made.get(question, (0.0, None))
        if task is None or time.monotonic() - made >= self._seconds or _has_failed(task):
            task = asyncio.create_task(self._make(make))
            self._made.pop(question, None)
            self._made[question] = time.monotonic(), task
            if len(self._made) > self._most:
                del self._made[next(iter(self._made))]
        if task.done():
            return task.result()
        return await asyncio.shield(task)  # one client that goes leaves it to the others

    async def _make(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        async with self._turn:
            return await make()


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
