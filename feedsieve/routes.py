"""Routes that answer HEAD, and leave out what FastAPI does for every request and few need."""

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction, signature
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


class PlainRoute(APIRoute):
    """A route that has its function called at once if there is no query to read and check.

    Reading none takes FastAPI up to a fifth of the time of a small answer. It concerns coroutines
    that take a `request`, parts of the path as they are, and what may be absent from the query, and
    that return a response; all others are FastAPI's.

    HEAD is answered as GET, and the server leaves the body out: FastAPI would refuse it, and were
    it named as a method it would be in the OpenAPI document, as an operation of its own.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether this route answers the request, as Starlette's documentation has it."""
        return super().matches(_as_get(scope))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await super().handle(_as_get(scope), receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request, as FastAPI's documentation has it."""
        by_fastapi = super().get_route_handler()
        function, read = self.endpoint, self.dependant
        is_plain = (
            iscoroutinefunction(function)
            and read.request_param_name == "request"
            and signature(function, eval_str=True).return_annotation is Response
            and all(part.field_info.annotation is str for part in read.path_params)
            and not any(part.field_info.is_required() for part in read.query_params)
            and not (read.header_params or read.cookie_params or read.body_params)
            and not read.dependencies
        )
        if not is_plain:
            return by_fastapi

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await by_fastapi(request)
            return await function(request=request, **request.path_params)

        return handle


def _as_get(scope: Scope) -> Scope:
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope
