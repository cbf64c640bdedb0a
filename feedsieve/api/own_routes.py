"""Requests that our routes answer without BentoML's application around them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.api import readiness
from feedsieve.api.root_path import route_path

_READING = ("/feed", "/feed/", "/messages")


class OwnRoutesMiddleware:
    """Passes `/readyz`, and requests for the feed and for messages, to our routes.

    BentoML's own `/readyz` has no body. Its context, time limit and routing take a fifth of the
    time of a cached page, and our routes use none of them.
    """

    def __init__(self, app: ASGIApp, web: ASGIApp) -> None:
        """`web` has the routes; `app` answers everything else."""
        self.app = app
        self.web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and _is_ours(scope)
        await (self.web if is_ours else self.app)(scope, receive, send)


def _is_ours(scope: Scope) -> bool:
    path = route_path(scope)
    if path == readiness.PATH:
        return True
    is_reading = path in _READING or path.startswith("/messages/")
    return is_reading and scope["method"] in ("GET", "HEAD")
