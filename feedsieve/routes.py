"""Routes that leave out what FastAPI does for every request and few need."""

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction, signature
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class PlainRoute(APIRoute):
    """A route that has its function called at once if there is no query to read and check.

    Reading none takes FastAPI as long as all else that a small answer needs. It concerns functions
    that take a `request`, parts of the path, and what may be absent from the query, and that return
    a response; all others are FastAPI's.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request, as FastAPI's documentation has it."""
        by_fastapi = super().get_route_handler()
        function = self.endpoint
        said = signature(function)
        if not iscoroutinefunction(function) or "request" not in said.parameters:
            return by_fastapi

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await by_fastapi(request)
            return await function(request=request, **request.path_params)

        return handle
