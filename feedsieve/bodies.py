"""Request bodies checked before BentoML reads them: what kind, how large, and what is in them.

BentoML checks them as well, but it reads any size, takes types that no client of ours sends, and
logs each bad body with a trace and what was in it.
"""

import asyncio
import json

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.problems import GONE, ProblemResponse, sentence


class BodyMiddleware:
    """Lets JSON of one schema and a bounded size through to a path, and answers all else itself.

    Work for a client that goes before it is answered is cancelled.
    """

    def __init__(self, app: ASGIApp, path: str, schema: type[BaseModel], largest: int) -> None:
        """`largest` is in bytes."""
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
            body = await self._read(request)
        except ClientDisconnect:  # nobody is there to be answered
            return
        except ProblemResponse as problem:
            await problem.respond(request)(scope, receive, send)
            return
        await _answer(self.app, scope, body, receive, send)

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
        whole = bytes(body)
        return self._checked(whole, may_be_mended=True)

    def _checked(self, body: bytes, may_be_mended: bool) -> bytes:
        try:
            self.schema.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            is_no_json = found[0]["type"] == "json_invalid"
            mended = _without_lone_surrogates(body) if may_be_mended and is_no_json else None
            if mended is None:
                raise ProblemResponse(400, sentence(found)) from None
            return self._checked(mended, may_be_mended=False)
        return body


def _without_lone_surrogates(body: bytes) -> bytes | None:
    """Return JSON without what has no UTF-8 form, None if that is not what is wrong with it.

    Half an emoji, where a client has cut a text, is as little a reason to refuse it here as in a
    file that is imported.
    """
    if b"\\ud" not in body.lower():
        return None
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode(errors="ignore")
    except (ValueError, RecursionError):
        return None


async def _answer(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Let `app` answer a request that was read, and cancel it if the client goes before that."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    task = asyncio.current_task()
    assert task
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    async def send_unwatched(message: Message) -> None:
        watcher.cancel()  # that an answer has ended looks like a client that goes
        await send(message)

    try:
        await app(scope, receive_again, send_unwatched)
    except asyncio.CancelledError:
        if not is_gone:
            raise
        task.uncancel()
        gone = Response(status_code=GONE)  # to nobody, but BentoML's time-out waits for an answer
        await gone(scope, receive, send)
    finally:
        watcher.cancel()
