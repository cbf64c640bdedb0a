"""Answers that are good for a moment: what many ask for at once is made once."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")

LONGEST_WAIT = 20.0  # seconds, for a turn: whoever asked would be gone if it took much longer


class Recent(Generic[Answer]):
    """Keeps answers for some time, and makes a few at once. For one event loop."""

    def __init__(self, seconds: float, most: int, at_once: int) -> None:
        """Keep at most `most` answers, for `seconds` from when their making begins.

        At most `at_once` are made at a time.
        """
        self._seconds = seconds
        self._most = most
        self._turn = asyncio.Semaphore(at_once)
        self._made: dict[Hashable, asyncio.Task[tuple[float, Answer]]] = {}  # oldest first

    async def answer(
        self, question: Hashable, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Return the answer that is young enough or being made, or else what `make` returns.

        What `make` raises is raised for all who wait for it, and is not kept; so is TimeoutError,
        if others hold up its making for `LONGEST_WAIT`.
        """
        task = self._made.get(question)
        if task is None or self._is_over(task):
            task = asyncio.create_task(self._make(make))
            self._made.pop(question, None)
            self._made[question] = task
            if len(self._made) > self._most:
                del self._made[next(iter(self._made))]
        if not task.done():
            await asyncio.shield(task)  # one client that goes leaves it to the others
        _begun, answer = task.result()
        return answer

    async def _make(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> tuple[float, Answer]:
        async with asyncio.timeout(LONGEST_WAIT):
            await self._turn.acquire()
        try:
            return time.monotonic(), await make()
        finally:
            self._turn.release()

    def _is_over(self, task: asyncio.Task[tuple[float, Answer]]) -> bool:
        if not task.done():
            return False
        if task.cancelled() or task.exception() is not None:
            return True
        begun, _answer = task.result()
        return time.monotonic() - begun >= self._seconds
