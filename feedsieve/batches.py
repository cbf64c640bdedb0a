"""Requests done together: whatever has come in by the time that the last ones are done."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    answer: asyncio.Future[Answer]


class Batches(Generic[Request, Answer]):
    """Gives a thread what is waiting as soon as it is free.

    A request whose task is cancelled leaves, and is not done unless that has begun. To be used
    from one event loop.
    """

    def __init__(self, name: str, do: Callable[[Sequence[Request]], Answer], largest: int) -> None:
        """`do` is given requests of together `largest` items, or a single one, and answers all."""
        self._do = do
        self._largest = largest
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._is_busy = False
        self._thread = ThreadPoolExecutor(1, name)

    async def answer(self, request: Request) -> Answer:
        """Return the answer to `request` and those done with it. Raises what doing them raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._start)  # with all that this turn of the loop brings
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def _start(self) -> None:
        batch: list[_Waiting[Request, Answer]] = []
        room = self._largest
        while self._waiting and (not batch or len(self._waiting[0].request) <= room):
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].request)
        self._is_busy = bool(batch)
        if batch:
            requests = [waiting.request for waiting in batch]
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._do, requests)
            done.add_done_callback(partial(self._finish, batch))

    def _finish(
        self, batch: Sequence[_Waiting[Request, Answer]], done: asyncio.Future[Answer]
    ) -> None:
        self._start()  # before anyone is answered: the thread's time is what is scarce
        error = done.exception()
        for waiting in batch:
            if waiting.answer.done():  # nobody waits for it any longer
                continue
            if error:
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(done.result())
