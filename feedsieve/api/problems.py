"""Errors as problem details (RFC 9457): JSON for programs, a page for browsers, never a trace."""

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve import metrics
from feedsieve.api.rendering import prefers_page, render
from feedsieve.api.root_path import route_path
from feedsieve.errors import FeedsieveError
from feedsieve.message import StoreUnavailable
from feedsieve.metrics import endpoint
from feedsieve.serving.admission import Overloaded
from feedsieve.serving.runtime import ModelNotReady

_log = logging.getLogger("feedsieve")

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected
ANSWER_SECONDS = 60  # clients and proxies would not wait longer
RETRY_AFTER = 5  # seconds for a model to load or a lock to end
_DETAILS = {
    404: "nothing is at this address; /docs lists all routes",
    500: "an unexpected error; the server's log has the details",
    504: f"no answer within {ANSWER_SECONDS} seconds; try again, or send fewer texts at once",
    503: "the service is unavailable; try again",
}


class Problem(BaseModel):
    """An error: a short `title`, the HTTP `status`, and in `detail` what is allowed."""

    title: str
    status: int
    detail: str


class ProblemResponse(Exception):
    """Raised by a route to answer with a problem."""

    def __init__(self, status: int, detail: str, accept_encoding: str | None = None) -> None:
        """`accept_encoding` names the content codings that the client may use instead."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {"Accept-Encoding": accept_encoding} if accept_encoding else {}

    def respond(self, request: Request) -> Response:
        """Return the answer to `request`."""
        response = respond(request, self.status, self.detail)
        response.headers.update(self.headers)
        return response


def respond(
    request: Request | None,
    status: int,
    detail: str,
    allow: str | None = None,
    retry_after: int = RETRY_AFTER,
) -> Response:
    """Return a problem as the client prefers: a page or JSON; JSON without a `request`."""
    title = HTTPStatus(status).phrase
    headers = {"Vary": "Accept"}
    if allow:
        headers["Allow"] = allow
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(retry_after)
    if request and prefers_page(request.headers.get("accept", "")):
        return render(request, "problem.html", status, headers, title=title, detail=detail)
    problem = Problem(title=title, status=status, detail=detail)
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def unavailable(request: Request | None, error: FeedsieveError) -> Response:
    """Return 503 with the error's message, and when to try again."""
    retry_after = error.retry_after if isinstance(error, Overloaded) else RETRY_AFTER
    other: Literal["model", "store"] = "model" if isinstance(error, ModelNotReady) else "store"
    metrics.refused(error.kind if isinstance(error, Overloaded) else other)
    return respond(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after=retry_after)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of these error answers."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def with_errors(
    document: dict[str, Any], path: str, errors: dict[int | str, dict[str, Any]]
) -> dict[str, Any]:
    """Define problems in an OpenAPI document, and replace the errors of `path` by `errors`.

    BentoML documents its own form of errors, which `ProblemMiddleware` replaces.
    """
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    operation = document["paths"][path]["post"]
    operation["responses"] = {200: operation["responses"][200]} | errors
    return document


def install(web: FastAPI) -> None:
    """Answer exceptions of the routes of `web` with problems."""

    @web.exception_handler(ProblemResponse)
    def _(request: Request, error: ProblemResponse) -> Response:
        return error.respond(request)

    @web.exception_handler(HTTPStatus.METHOD_NOT_ALLOWED)
    def _(request: Request, error: Exception) -> Response:
        found = [route for route in web.routes if route.matches(request.scope)[0] != Match.NONE]
        methods = {method for route in found for method in getattr(route, "methods", None) or ()}
        if "GET" in methods:
            methods.add("HEAD")  # feedsieve/api/route_class.py answers both
        allow = ", ".join(sorted(methods))
        detail = f"this address answers {allow}"
        return respond(request, HTTPStatus.METHOD_NOT_ALLOWED, detail, allow)

    @web.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> Response:
        return respond(request, HTTPStatus.UNPROCESSABLE_ENTITY, sentence(error.errors()))

    @web.exception_handler(Overloaded)
    @web.exception_handler(ModelNotReady)
    def _(request: Request, error: FeedsieveError) -> Response:
        return unavailable(request, error)

    @web.exception_handler(StoreUnavailable)
    def _(request: Request, error: StoreUnavailable) -> Response:
        _log.error("%s", error)
        metrics.refused("store")
        detail = "the message store is unavailable"
        return respond(request, HTTPStatus.SERVICE_UNAVAILABLE, detail)


def sentence(errors: Sequence[Any]) -> str:
    """Return pydantic's errors as one line: where, and what is allowed. It quotes no input."""
    clauses = []
    for error in errors[:3]:
        place = ".".join(str(part) for part in error["loc"] if part not in ("query", "body"))
        clauses.append(f"{place}: {error['msg']}" if place else error["msg"])
    if len(errors) > len(clauses):
        clauses.append(f"and {len(errors) - len(clauses)} more")
    return "; ".join(clauses)


class ProblemMiddleware:
    """Replaces error answers that are not problems yet, such as BentoML's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        failed: Message | None = None

        async def send_or_hold(message: Message) -> None:
            nonlocal started, failed
            if message["type"] == "http.response.start":
                if _is_replaced(message):
                    failed = message
                else:
                    started = True
            if failed is None:
                await send(message)

        status, allow = HTTPStatus.INTERNAL_SERVER_ERROR, None
        limit = asyncio.timeout(ANSWER_SECONDS)
        try:
            async with limit:
                await self.app(scope, receive, send_or_hold)
        except Exception:
            if started:
                raise
            if limit.expired():
                status = HTTPStatus.GATEWAY_TIMEOUT
            else:
                _log.exception("%s %s failed", scope["method"], endpoint(route_path(scope)))
        else:
            if failed is None:
                return
            status = HTTPStatus(failed["status"])
            allow = Headers(raw=failed["headers"]).get("allow")
        detail = _DETAILS.get(status, status.phrase.lower())
        if allow:
            detail = f"this address answers {allow}"
        await respond(Request(scope), status, detail, allow)(scope, receive, send)


def _is_replaced(start: Message) -> bool:
    """Return whether the answer is an error in a form that clients cannot rely on."""
    if start["status"] < 400 or start["status"] == CLIENT_CLOSED_REQUEST:
        return False
    media_type = Headers(raw=start["headers"]).get("content-type", "")
    return not media_type.startswith((MEDIA_TYPE, "text/html"))
