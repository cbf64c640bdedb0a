"""Reading, validation and admission of request bodies, before BentoML reads them.

BentoML reads bodies of any size and of other types, and logs each bad one with its content.
"""

import asyncio
import codecs
import json
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.api.content_encoding import ACCEPTED, Decompressor, InvalidCompression
from feedsieve.api.json_shape import is_plain
from feedsieve.api.problems import (
    CLIENT_CLOSED_REQUEST,
    ProblemResponse,
    sentence,
    unavailable,
)
from feedsieve.api.root_path import route_path
from feedsieve.api.schemas import MAX_BODY
from feedsieve.serving.admission import AdmissionControl, BodySize, Overloaded, Work
from feedsieve.tracing import span

MAX_ON_LOOP = 65_536  # bytes of JSON that the event loop parses itself, within some milliseconds
SLOW_SECONDS = 5.0  # that a body may take whatever its speed
MIN_SPEED = 20_000  # bytes a second after that
BODY_SECONDS = 30.0  # for any body

# BentoML's timeout waits for an answer, although nobody reads it.
_CLOSED = Response(status_code=CLIENT_CLOSED_REQUEST)
_UTF_8 = "JSON must be UTF-8: encode the body as UTF-8"


class Body(NamedTuple):
    """The schema of a body, and what is done with its texts."""

    schema: type[BaseModel]
    work: Work


class RequestBodyMiddleware:
    """Rejects POST requests to some paths unless their body is JSON of the path's schema.

    Decompresses bodies, and removes a byte order mark. Answers 503 if there is too much to do: a
    request takes its place once its body is there, so that slow clients keep nobody out. Cancels
    requests whose client disconnects.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: AdmissionControl,
        bodies: Mapping[str, Body],
    ) -> None:
        """`bodies` are by path; requests to other paths are passed on as they are."""
        self.app = app
        self.admission = admission
        self.bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        expected = self._expected(scope)
        if expected is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self.admission.check(expected.work)
            with self.admission.body() as size:
                with span("body"):
                    body = await _validated(await _read(request, size), expected.schema)
                with self.admission.request(expected.work):
                    await _run(self.app, _described(scope, body), body, receive, send)
        except ClientDisconnect:
            await _CLOSED(scope, receive, send)
        except ProblemResponse as problem:
            await problem.respond(request)(scope, receive, send)
        except Overloaded as error:
            await unavailable(request, error)(scope, receive, send)

    def _expected(self, scope: Scope) -> Body | None:
        """Return what a request's body has to be, None if it is not to be read here."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        return self.bodies.get(route_path(scope))


async def _read(request: Request, size: BodySize) -> bytes:
    """Return the body, decompressed; count its bytes. Raises ProblemResponse and Overloaded."""
    # Without a type too: pages of other sites may send such bodies, and ask nobody before.
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise ProblemResponse(415, "send JSON, with the header Content-Type: application/json")
    coding = _content_coding(request)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    async for part in _decompressed(request, coding) if coding else _parts(request):
        if len(body) + len(part) > MAX_BODY:
            raise _too_large()
        size.add(len(part))
        body += part
    return bytes(body)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it arrives. Raises ProblemResponse if that takes too long."""
    loop = asyncio.get_running_loop()
    started, received = loop.time(), 0
    stream = request.stream()
    while True:
        seconds = min(BODY_SECONDS, SLOW_SECONDS + received / MIN_SPEED)
        try:
            async with asyncio.timeout_at(started + seconds):
                part = await anext(stream, None)
        except TimeoutError:
            detail = f"the body arrives too slowly: send {MIN_SPEED:,} bytes a second or more"
            raise ProblemResponse(408, detail) from None
        if part is None:
            return
        received += len(part)
        yield part


def _content_coding(request: Request) -> str | None:
    """Return the coding that the body is compressed with, or None. Raises ProblemResponse."""
    coding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if coding in ("", "identity"):
        return None
    coding = coding.removeprefix("x-")  # x-gzip is gzip (RFC 9110, 8.4.1.3)
    if coding not in ("gzip", "deflate"):
        detail = "Content-Encoding may be gzip or deflate; without it, the body is read as it is"
        raise ProblemResponse(415, detail, accept_encoding=ACCEPTED)
    return coding


async def _decompressed(request: Request, coding: str) -> AsyncIterator[bytes]:
    """Yield the pieces of a body that has at most `MAX_BODY` bytes while it is compressed."""
    decompressor, received = Decompressor(coding), 0
    try:
        async for part in _parts(request):
            received += len(part)
            if received > MAX_BODY:
                raise _too_large()
            for piece in decompressor.pieces(part):
                yield piece
                await asyncio.sleep(0)  # other requests go on
        decompressor.end()
    except InvalidCompression as error:
        raise ProblemResponse(400, str(error)) from None


def _too_large() -> ProblemResponse:
    detail = f"the body may have at most {MAX_BODY:,} bytes, decompressed: send fewer texts at once"
    return ProblemResponse(413, detail)


async def _validated(body: bytes, schema: type[BaseModel]) -> bytes:
    """Return what `_validate` does. Large bodies are read in a thread. Raises ProblemResponse."""
    if len(body) <= MAX_ON_LOOP:
        return _validate(body, schema)
    if not await asyncio.to_thread(is_plain, body):
        raise ProblemResponse(
            400, "the body has more values or space than 256 texts need; see /docs"
        )
    return await asyncio.to_thread(_validate, body, schema)


def _validate(body: bytes, schema: type[BaseModel], *, may_repair: bool = True) -> bytes:
    """Return the body without a byte order mark and lone surrogates. Raises ProblemResponse."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        schema.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if may_repair and errors[0]["type"] == "json_invalid":
            _check_utf_8(body)
            repaired = _without_lone_surrogates(body)
            if repaired is not None:
                return _validate(repaired, schema, may_repair=False)
        raise ProblemResponse(400, sentence(errors)) from None
    return body


def _check_utf_8(body: bytes) -> None:
    """Raise ProblemResponse if this JSON is in another encoding.

    JSON begins with an ASCII character, so that a zero byte beside it means UTF-16 or UTF-32.
    """
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:2]:
        wide = "UTF-32" if b"\0\0" in body[:4] else "UTF-16"
        raise ProblemResponse(400, f"Invalid JSON: the body is {wide}, but {_UTF_8}")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        detail = f"Invalid JSON: byte {error.start + 1} of the body is not UTF-8, but {_UTF_8}"
        raise ProblemResponse(400, detail) from None


def _described(scope: Scope, body: bytes) -> Scope:
    """Return the scope of a request with this body, which is not compressed."""
    scope = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    del headers["content-encoding"]
    headers["content-length"] = str(len(body))
    return scope


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
        await _CLOSED(scope, receive, send)
    finally:
        watcher.cancel()
