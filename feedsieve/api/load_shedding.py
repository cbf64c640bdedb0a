"""Load shedding: answer 503 before a body is read if the service has too much to do."""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.api import problems
from feedsieve.serving.admission import AdmissionControl, Overloaded


class LoadSheddingMiddleware:
    """Admits POST requests to a path by number and bytes, and answers the others with 503."""

    def __init__(self, app: ASGIApp, path: str, admission: AdmissionControl, largest: int) -> None:
        """`largest` is the size of the largest body that is read, in bytes."""
        self.app = app
        self.path = path
        self.admission = admission
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        size = min(int(declared), self.largest) if declared.isdecimal() else self.largest
        try:
            with self.admission.request(size):
                await self.app(scope, receive, send)
        except Overloaded as error:
            await problems.unavailable(Request(scope), error)(scope, receive, send)
