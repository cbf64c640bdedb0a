"""A trace for each request, where traces are on: a span with route, status and request id."""

from opentelemetry.trace import StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve import tracing
from feedsieve.api.problems import CLIENT_CLOSED_REQUEST
from feedsieve.api.root_path import route_path
from feedsieve.logs import request_context
from feedsieve.metrics import endpoint

UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds by machines
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_PARENT = b"traceparent"  # of W3C Trace Context


class RequestTraceMiddleware:
    """Traces requests. It has the route and not the path, whose identifier may be a phone number.

    Names are those of OpenTelemetry's semantic conventions for HTTP servers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spans = tracing.spans()
        route = endpoint(route_path(scope)) if scope["type"] == "http" else ""
        if not spans or not route or route in UNTRACED:
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        context = request_context.get()
        attributes = {
            "http.request.method": method,
            "http.route": route,
            "url.scheme": scope["scheme"],
            "feedsieve.request_id": context.id if context else "",
        }
        status = CLIENT_CLOSED_REQUEST

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with spans.request(f"{method} {route}", attributes, _parent(scope)) as span:
            try:
                await self.app(scope, receive, send_and_note)
            finally:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_attribute("error.type", str(status))
                    span.set_status(StatusCode.ERROR)


def _parent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _PARENT:
            return str(value.decode("latin-1"))
    return None
