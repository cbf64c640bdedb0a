"""Dynamic batching: requests that wait are computed together as soon as the engine has room."""

import asyncio
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

from feedsieve import tracing

if TYPE_CHECKING:
    from feedsieve.spans import Queued

MAX_BATCHES = 2  # at once: a third would start small, since running batches take no requests
Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")
Compute = Callable[[Sequence[Request], Callable[[], object]], Answer]


@dataclass(order=True, slots=True)
class _Waiting(Generic[Request, Answer]):
    finish: float  # on the queue's own clock, which counts costs
    number: int
    request: Request | None = field(compare=False)  # none once it is cancelled
    cost: float = field(compare=False)
    answer: asyncio.Future[Answer] = field(compare=False)
    trace: "Queued | None" = field(compare=False)


_Batch = list[_Waiting[Request, Answer]]


class DynamicBatcher(Generic[Request, Answer]):
    """Computes all waiting requests together once the batch before allows it.

    Clients that submit several requests at once take turns with others (self-clocked fair queueing,
    Golestani 1994): a request's turn comes as much later as it and those before it of the same
    client cost. A request whose task is cancelled is dropped if it still waits. For one event loop.
    """

    def __init__(self, name: str, compute: Compute[Request, Answer], max_cost: float) -> None:
        """Call `compute` in a thread with requests that together cost `max_cost`, or with one.

        It returns one answer for all of them. Its second argument is a function to call once it
        has only to wait: then the next batch starts, up to `MAX_BATCHES`. `max_cost` may be
        changed at any time.
        """
        self.max_cost = max_cost
        self._name = name
        self._compute = compute
        self._queue: list[_Waiting[Request, Answer]] = []  # a heap
        self._numbers = count()
        self._now = 0.0  # the finish of the last request that was taken
        self._running = 0
        self._blocking: _Batch[Request, Answer] | None = None  # the next batch waits for it
        self._threads = ThreadPoolExecutor(MAX_BATCHES, name)

    async def submit(
        self, request: Request, cost: float | None = None, ahead: float = 0.0
    ) -> Answer:
        """Return the answer of the batch with `request`. Raises what computing it raises.

        `cost` is the number of items by default; `ahead` is what the requests cost that the same
        client submits with this one and that come before it.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        cost = len(request) if cost is None else cost
        finish = self._now + ahead + cost
        trace = tracing.queued(self._name, request)
        waiting = _Waiting(finish, next(self._numbers), request, cost, answer, trace)
        heappush(self._queue, waiting)
        if not self._blocking and len(self._queue) == 1:
            loop.call_soon(self._start)  # with all requests of this turn of the loop
        try:
            return await answer
        except asyncio.CancelledError:
            waiting.request = None  # its memory must not wait for its turn
            raise

    def _start(self) -> None:
        if self._blocking or self._running == MAX_BATCHES:
            return
        batch = self._take()
        if not batch:
            return
        self._blocking = batch
        self._running += 1
        loop = asyncio.get_running_loop()
        requests = [one.request for one in batch if one.request is not None]
        let_next = partial(loop.call_soon_threadsafe, self._unblock, batch)
        compute = tracing.with_spans(self._compute, [one.trace for one in batch])
        done: asyncio.Future[Answer]
        try:
            done = loop.run_in_executor(self._threads, compute, requests, let_next)
        except RuntimeError as error:  # no thread can be started
            done = loop.create_future()
            done.set_exception(error)
        done.add_done_callback(partial(self._finish, batch))

    def _take(self) -> _Batch[Request, Answer]:
        """Take the requests of the next batch from the queue, without cancelled ones."""
        batch: _Batch[Request, Answer] = []
        room = self.max_cost
        while self._queue and (not batch or self._queue[0].cost <= room):
            waiting = heappop(self._queue)
            if waiting.answer.done():  # cancelled
                continue
            self._now = max(self._now, waiting.finish)
            batch.append(waiting)
            room -= waiting.cost
        return batch

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
