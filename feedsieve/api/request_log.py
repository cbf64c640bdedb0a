"""Request ids, metrics of requests, and the access log: a line for each, without what it sent."""

import asyncio
import atexit
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from random import getrandbits
from typing import Literal, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve import metrics
from feedsieve.api.problems import CLIENT_CLOSED_REQUEST
from feedsieve.api.root_path import route_path
from feedsieve.logs import RequestContext, request_context, utc

HEADER = "X-Request-ID"
FLUSH_SECONDS = 0.2  # that a line of the access log waits for others, to be written with them
_NAME = HEADER.lower().encode()
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Access:
    """An answer: `route` is a path's template, `size` the bytes of the body."""

    method: str
    route: str
    status: int
    seconds: float
    size: int
    request: RequestContext


class AccessLog:
    """Writes a line for each request. For one event loop.

    A record of the module `logging` takes ten times as long, and no value needs escaping: none is
    free text.
    """

    def __init__(self, form: Literal["text", "json"], stream: TextIO | None = None) -> None:
        """The stream is stdout by default."""
        self._format = _as_json if form == "json" else _as_text
        self._stream = stream
        self._lines: list[str] = []
        atexit.register(self.flush)

    def add(self, access: Access) -> None:
        """Write a line, together with others that come soon."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._lines.append(self._format(access, utc(int(time.time()))))

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        stream = self._stream or sys.stdout
        if lines:
            with suppress(OSError, ValueError):  # a full disk or a closed stdout stops no server
                stream.write("".join(lines))
                stream.flush()


def _as_text(access: Access, now: str) -> str:
    key = f" key={access.request.key}" if access.request.key else ""
    return (
        f"{now} [INFO] [access] {access.method} {access.route} {access.status}"
        f" {access.seconds * 1000:.1f} ms {access.size} bytes request={access.request.id}{key}\n"
    )


def _as_json(access: Access, now: str) -> str:
    key = f', "key": "{access.request.key}"' if access.request.key else ""
    return (
        f'{{"time": "{now}", "level": "info", "logger": "feedsieve.access",'
        f' "method": "{access.method}", "route": "{access.route}", "status": {access.status},'
        f' "ms": {access.seconds * 1000:.1f}, "bytes": {access.size},'
        f' "request_id": "{access.request.id}"{key}}}\n'
    )


class RequestLogMiddleware:
    """Gives each request an id, which its answer and its log lines have; counts, times and logs it.

    The id is that of the header X-Request-ID if it is plain, or else a random one. The access log
    has the route and not the path, which may hold an identifier that is a phone number.
    """

    def __init__(self, app: ASGIApp, log: AccessLog | None) -> None:
        """Without a `log`, requests are not logged."""
        self.app = app
        self.log = log
        self._requests = metrics.Requests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                metrics.measure_lag(asyncio.get_running_loop())
            await self.app(scope, receive, send)
            return
        context = RequestContext(_given_id(scope) or f"{getrandbits(128):032x}")
        request_context.set(context)  # it ends with uvicorn's task for this request
        header = (_NAME, context.id.encode())
        started = time.perf_counter()
        status, size = CLIENT_CLOSED_REQUEST, 0

        async def send_and_note(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                # A new list: cached answers share theirs.
                message = {**message, "headers": [*message.get("headers", ()), header]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        self._requests.begin()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - started
            route = metrics.endpoint(route_path(scope))
            self._requests.end(route, status, seconds)
            if self.log:
                method = scope["method"]
                sent = 0 if method == "HEAD" else size
                self.log.add(Access(method, route, status, seconds, sent, context))


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:  # Headers would take several times as long
        if name == _NAME:
            return value.decode() if _PLAIN.fullmatch(value) else None
    return None
