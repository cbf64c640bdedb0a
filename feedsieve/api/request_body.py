"""Validation of request bodies before BentoML reads them.

BentoML reads bodies of any size and of other types, and logs each bad one with its content.
"""

import asyncio
import json

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.api.problems import CLIENT_CLOSED_REQUEST, ProblemResponse, sentence


class RequestBodyMiddleware:
    """Rejects POST requests to a path unless their body is JSON of one schema and bounded size.

    Cancels requests whose client disconnects.
    """

    def __init__(self, app: ASGIApp, path: str, schema: type[BaseModel], largest: int) -> None:
        """`largest` is the size of the largest body, in bytes."""
        self.app = app
        self.path = path
        self.schema = schema
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            body = self._validate(await self._read(request))
        except ClientDisconnect:
            return
        except ProblemResponse as problem:
            await problem.respond(request)(scope, receive, send)
            return
        await _run(self.app, scope, body, receive, send)

    async def _read(self, request: Request) -> bytes:
        media_type = request.headers.get("content-type", "application/json").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            raise ProblemResponse(415, "the body must be application/json")
        too_large = ProblemResponse(413, f"the body may have at most {self.largest:,} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.largest:
            raise too_large
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.largest:
                raise too_large
        return bytes(body)

    def _validate(self, body: bytes, *, may_repair: bool = True) -> bytes:
        """Return the body, without lone surrogates. Raises ProblemResponse."""
        try:
            self.schema.model_validate_json(body)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            if may_repair and errors[0]["type"] == "json_invalid":
                repaired = _without_lone_surrogates(body)
                if repaired is not None:
                    return self._validate(repaired, may_repair=False)
            raise ProblemResponse(400, sentence(errors)) from None
        return body


def _without_lone_surrogates(body: bytes) -> bytes | None:
    """Return JSON without lone surrogates, or None if these are not what is wrong with it.

    Clients that cut a text within an emoji send half of it. Imported files are read so as well.
    """
    if b"\\ud" not in body.lower():
        return None
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode(errors="ignore")
    except (ValueError, RecursionError):
        return None


async def _run(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run `app` on a request with `body`; cancel it if the client disconnects before the answer."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    task = asyncio.current_task()
    assert task
    is_disconnected = False

    async def watch() -> None:
        nonlocal is_disconnected
        while (await receive())["type"] != "http.disconnect":
            pass
        is_disconnected = True
        task.cancel()

    watcher = asyncio.create_task(watch())

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    async def send_unwatched(message: Message) -> None:
        watcher.cancel()  # the end of an answer looks like a disconnect
        await send(message)

    try:
        await app(scope, receive_again, send_unwatched)
    except asyncio.CancelledError:
        if not is_disconnected:
            raise
        task.uncancel()
        # BentoML's timeout waits for an answer, although nobody reads it.
        await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
    finally:
        watcher.cancel()
