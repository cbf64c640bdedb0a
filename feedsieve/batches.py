"""Requests done together: whatever has come in by the time that there is room for more."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

AT_ONCE = 2  # batches; what is in one cannot be joined, so a third would only be a small one
Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")
Do = Callable[[Sequence[Request], Callable[[], object]], Answer]


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    answer: asyncio.Future[Answer]


_Batch = list[_Waiting[Request, Answer]]


class Batches(Generic[Request, Answer]):
    """Does what is waiting as soon as what was begun before lets it.

    A request whose task is cancelled leaves, and is not done unless that has begun. To be used
    from one event loop.
    """

    def __init__(self, name: str, do: Do[Request, Answer], largest: int) -> None:
        """`do` is given requests of together `largest` items, or a single one, and answers all.

        It runs in a thread. What it is given as well it may call when all that is left is to wait:
        then the next batch is begun in another thread, unless there are `AT_ONCE` already.
        """
        self._do = do
        self._largest = largest
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._running = 0
        self._unlet: _Batch[Request, Answer] | None = None  # the one that the next waits for
        self._threads = ThreadPoolExecutor(AT_ONCE, name)

    async def answer(self, request: Request) -> Answer:
        """Return the answer to `request` and those done with it. Raises what doing them raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        if not self._unlet and len(self._waiting) == 1:
            loop.call_soon(self._start)  # with all that this turn of the loop brings
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def _start(self) -> None:
        if self._unlet or self._running == AT_ONCE or not self._waiting:
            return
        batch: _Batch[Request, Answer] = [self._waiting.popleft()]
        room = self._largest - len(batch[0].request)
        while self._waiting and len(self._waiting[0].request) <= room:
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].request)
        self._unlet = batch
        self._running += 1
        loop = asyncio.get_running_loop()
        requests = [waiting.request for waiting in batch]
        let_next = partial(loop.call_soon_threadsafe, self._let_next, batch)
        done: asyncio.Future[Answer]
        try:
            done = loop.run_in_executor(self._threads, self._do, requests, let_next)
        except RuntimeError as error:  # there is no thread yet, and none can be started
            done = loop.create_future()
            done.set_exception(error)
        done.add_done_callback(partial(self._finish, batch))

    def _let_next(self, batch: _Batch[Request, Answer]) -> None:
        if self._unlet is batch:
            self._unlet = None
        self._start()

    def _finish(self, batch: _Batch[Request, Answer], done: asyncio.Future[Answer]) -> None:
        self._running -= 1
        self._let_next(batch)  # before anyone is answered: the engine's time is what is scarce
        error = done.exception()
        for waiting in batch:
            if waiting.answer.done():  # nobody waits for it any longer
                continue
            if error:
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(done.result())
