"""Errors as problem details (RFC 9457): JSON for programs, a page for people, never a trace."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from bentoml.exceptions import ServiceUnavailable
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.message import StoreUnavailable
from feedsieve.pages import prefers_page, render

_log = logging.getLogger("feedsieve")

MEDIA_TYPE = "application/problem+json"
GONE = 499  # nginx's status for a client that did not wait, which nobody is there to read
RETRY_AFTER = 5  # seconds; what is loading or locked now may be well by then
_DETAILS = {
    404: "there is nothing at this address; /docs lists what there is",
    500: "an unexpected error, which the server has written to its log",
    503: "the service cannot answer now; try again",
}


class Problem(BaseModel):
    """What went wrong: a short `title`, the HTTP `status`, and what is allowed in `detail`."""

    title: str
    status: int
    detail: str


class ProblemResponse(Exception):
    """Raised by a route to answer with a problem."""

    def __init__(self, status: int, detail: str, retry_after: int = RETRY_AFTER) -> None:
        """`retry_after` is in seconds, and said with status 503 only."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after

    def respond(self, request: Request) -> Response:
        """Return the answer to `request`."""
        return respond(request, self.status, self.detail, retry_after=self.retry_after)


def respond(
    request: Request | None,
    status: int,
    detail: str,
    allow: str | None = None,
    retry_after: int = RETRY_AFTER,
) -> Response:
    """Return a problem as the client prefers it: a page for browsers, else JSON.

    Without a `request` it is JSON.
    """
    title = HTTPStatus(status).phrase
    headers = {"Vary": "Accept"}
    if allow:
        headers["Allow"] = allow
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(retry_after)
    if request and prefers_page(request.headers.get("accept", "")):
        return render("problem.html", status, headers, title=title, detail=detail)
    problem = Problem(title=title, status=status, detail=detail)
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these error answers."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def with_errors(
    document: dict[str, Any], path: str, errors: dict[int | str, dict[str, Any]]
) -> dict[str, Any]:
    """Return an OpenAPI document that defines problems, and whose `path` has these error answers.

    BentoML documents errors in a form of its own, which `ProblemMiddleware` replaces.
    """
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    operation = document["paths"][path]["post"]
    operation["responses"] = {200: operation["responses"][200]} | errors
    return document


def install(web: FastAPI) -> None:
    """Let what the routes of `web` raise become problems."""

    @web.exception_handler(ProblemResponse)
    def _(request: Request, error: ProblemResponse) -> Response:
        return error.respond(request)

    @web.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> Response:
        return respond(request, HTTPStatus.UNPROCESSABLE_ENTITY, sentence(error.errors()))

    @web.exception_handler(ServiceUnavailable)
    def _(request: Request, error: ServiceUnavailable) -> Response:
        return respond(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    @web.exception_handler(StoreUnavailable)
    def _(request: Request, error: StoreUnavailable) -> Response:
        _log.error("%s", error)
        return respond(
            request, HTTPStatus.SERVICE_UNAVAILABLE, "the message store cannot be read now"
        )


def sentence(errors: Sequence[Any]) -> str:
    """Return pydantic's errors as one line: where, and what is allowed. No input is repeated."""
    clauses = []
    for error in errors[:3]:
        place = ".".join(str(part) for part in error["loc"] if part not in ("query", "body"))
        clauses.append(f"{place}: {error['msg']}" if place else error["msg"])
    if len(errors) > len(clauses):
        clauses.append(f"and {len(errors) - len(clauses)} more")
    return "; ".join(clauses)


def _is_told(start: Message) -> bool:
    """Return whether an answer that starts so is no error, or one that a client can read."""
    if start["status"] < 400 or start["status"] == GONE:
        return True
    media_type = Headers(raw=start["headers"]).get("content-type", "")
    return media_type.startswith((MEDIA_TYPE, "text/html"))


class ProblemMiddleware:
    """Turns every error answer that is not a problem yet, BentoML's own included, into one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        failed: Message | None = None

        async def send_or_keep(message: Message) -> None:
            nonlocal started, failed
            if message["type"] == "http.response.start":
                if _is_told(message):
                    started = True
                else:
                    failed = message
            if failed is None:
                await send(message)

        status, allow = HTTPStatus.INTERNAL_SERVER_ERROR, None
        try:
            await self.app(scope, receive, send_or_keep)
        except Exception:
            if started:
                raise
            _log.exception("%s %r failed", scope["method"], scope["path"])
        else:
            if failed is None:
                return
            status = HTTPStatus(failed["status"])
            allow = Headers(raw=failed["headers"]).get("allow")
            if allow == "GET":
                allow = "GET, HEAD"  # which feedsieve/routes.py answers as well
        detail = _DETAILS.get(status, status.phrase.lower())
        if allow:
            detail = f"this address answers {allow}"
        await respond(Request(scope), status, detail, allow)(scope, receive, send)
