"""Dynamic batching: requests that wait are computed together as soon as the engine has room."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

MAX_BATCHES = 2  # at once: a third would start small, since running batches take no requests
Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")
Compute = Callable[[Sequence[Request], Callable[[], object]], Answer]


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    answer: asyncio.Future[Answer]


_Batch = list[_Waiting[Request, Answer]]


class DynamicBatcher(Generic[Request, Answer]):
    """Computes all waiting requests together once the batch before allows it.

    A request whose task is cancelled is dropped if it still waits. For one event loop.
    """

    def __init__(self, name: str, compute: Compute[Request, Answer], max_size: int) -> None:
        """Call `compute` in a thread with requests of together `max_size` items, or with one.

        It returns one answer for all of them. Its second argument is a function to call once it
        has only to wait: then the next batch starts, up to `MAX_BATCHES`.
        """
        self._compute = compute
        self._max_size = max_size
        self._queue: deque[_Waiting[Request, Answer]] = deque()
        self._running = 0
        self._blocking: _Batch[Request, Answer] | None = None  # the next batch waits for it
        self._threads = ThreadPoolExecutor(MAX_BATCHES, name)

    async def submit(self, request: Request) -> Answer:
        """Return the answer of the batch with `request`. Raises what computing it raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        waiting = _Waiting(request, answer)
        self._queue.append(waiting)
        if not self._blocking and len(self._queue) == 1:
            loop.call_soon(self._start)  # with all requests of this turn of the loop
        try:
            return await answer
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            raise

    def _start(self) -> None:
        if self._blocking or self._running == MAX_BATCHES or not self._queue:
            return
        batch: _Batch[Request, Answer] = [self._queue.popleft()]
        room = self._max_size - len(batch[0].request)
        while self._queue and len(self._queue[0].request) <= room:
            batch.append(self._queue.popleft())
            room -= len(batch[-1].request)
        self._blocking = batch
        self._running += 1
        loop = asyncio.get_running_loop()
        requests = [waiting.request for waiting in batch]
        let_next = partial(loop.call_soon_threadsafe, self._unblock, batch)
        done: asyncio.Future[Answer]
        try:
            done = loop.run_in_executor(self._threads, self._compute, requests, let_next)
        except RuntimeError as error:  # no thread can be started
            done = loop.create_future()
            done.set_exception(error)
        done.add_done_callback(partial(self._finish, batch))

    def _unblock(self, batch: _Batch[Request, Answer]) -> None:
        if self._blocking is batch:
            self._blocking = None
        self._start()

    def _finish(self, batch: _Batch[Request, Answer], done: asyncio.Future[Answer]) -> None:
        self._running -= 1
        self._unblock(batch)  # before the answers: the engine must not wait
        error = done.exception()
        for waiting in batch:
            if waiting.answer.done():  # cancelled
                continue
            if error:
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(done.result())
