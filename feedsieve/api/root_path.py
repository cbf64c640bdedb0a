"""The path under which clients see the service, behind a proxy that removes it from requests."""

from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.metrics import endpoint
from feedsieve.settings import is_root_path


class RootPathMiddleware:
    """Sets ASGI's `root_path`, which every link begins with: X-Forwarded-Prefix, or the setting.

    A header that is not a plain path is ignored, so that no link leads to another host. ASGI's
    `path` has the root path before the route. Requests may have it too, if the proxy leaves it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (root := self._find(scope)):
            path = scope["path"]
            # Routes win: behind /messages, /messages/1 is the message.
            if not f"{path}/".startswith(f"{root}/") or endpoint(path) != "other":
                raw_path = root.encode() + scope["raw_path"]
                scope = {**scope, "path": root + path, "raw_path": raw_path}
            scope = {**scope, "root_path": root}
        await self.app(scope, receive, send)

    def _find(self, scope: Scope) -> str:
        for name, value in scope["headers"]:  # Headers would take several times as long
            if name == b"x-forwarded-prefix":
                forwarded = value.decode("latin-1").removesuffix("/")
                return forwarded if is_root_path(forwarded) else self.root_path
        return self.root_path


def route_path(scope: Scope) -> str:
    """Return the path of a request without the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
