"""Load shedding: answer 503 before a body is read if the service has too much to do."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.api import problems
from feedsieve.api.content_encoding import MAX_RATIO
from feedsieve.api.request_body import JsonBody, posted
from feedsieve.serving.admission import AdmissionControl, Overloaded


class LoadSheddingMiddleware:
    """Admits POST requests to some paths by number and bytes, and answers the others with 503."""

    def __init__(
        self, app: ASGIApp, admission: AdmissionControl, bodies: Mapping[str, JsonBody]
    ) -> None:
        """`bodies` are by path; requests to other paths are passed on."""
        self.app = app
        self.admission = admission
        self.bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = posted(scope, self.bodies)
        if accepted is None:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else accepted.largest
        if "content-encoding" in headers:
            size *= MAX_RATIO
        size = min(size, accepted.largest)
        try:
            with self.admission.request(size):
                await self.app(scope, receive, send)
        except Overloaded as error:
            await problems.unavailable(Request(scope), error)(scope, receive, send)
