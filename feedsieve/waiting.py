"""Overload: how many requests may wait to be scored, and what becomes of one too many."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.problems import ProblemResponse

RETRY_AFTER = 1  # seconds; by then some of those that wait now have been answered


class WaitingRoom:
    """Counts who waits and how much there is to read. To be used from one event loop."""

    def __init__(self, requests: int, size: int) -> None:
        """At most `requests` may be in the room at once, and `size` bytes.

        That bounds memory; how long it takes to read is bounded in feedsieve/patience.py. A large
        one counts as a quarter of the room, so that it neither is kept out by a small one nor keeps
        all others out.
        """
        self._requests = requests
        self._size = size
        self._taken = 0
        self._used = 0

    @contextmanager
    def place(self, size: int = 0) -> Iterator[None]:
        """Keep a place for a request of `size` bytes while it is read, waits and is scored.

        Raises ProblemResponse, 503, if there is none.
        """
        size = min(size, self._size // 4)
        if self._taken == self._requests or self._used + size > self._size:
            raise ProblemResponse(503, "too many requests wait to be scored", RETRY_AFTER)
        self._taken += 1
        self._used += size
        try:
            yield
        finally:
            self._taken -= 1
            self._used -= size


class WaitingMiddleware:
    """Refuses what finds no place in the room, before any of its body is read."""

    def __init__(self, app: ASGIApp, path: str, room: WaitingRoom, largest: int) -> None:
        """`largest` is the size in bytes of the largest body that is read."""
        self.app = app
        self.path = path
        self.room = room
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        size = min(int(declared), self.largest) if declared.isdecimal() else self.largest
        try:
            with self.room.place(size):
                await self.app(scope, receive, send)
        except ProblemResponse as problem:
            await problem.respond(Request(scope))(scope, receive, send)
