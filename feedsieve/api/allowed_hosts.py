"""The Host header: pages of another site must not read the service under that site's own name.

A site can let its name lead to 127.0.0.1 once its page is loaded (DNS rebinding). The browser then
takes the service for a part of that site, and sends the site's name as Host. Addresses cannot be
rebound, so that probes and other machines of the network need no setting.
"""

import ipaddress
from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.api.problems import respond
from feedsieve.api.root_path import route_path

ALWAYS = ("localhost", "*.localhost")
_PROBES = ("/livez", "/readyz")  # no messages in them, and load balancers send any name


class AllowedHostsMiddleware:
    """Answers 400 unless Host is an IP address, a name of this machine, or an allowed name.

    A request without Host is passed on: browsers always send one.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        """`names` are in lower case, without ports; `*.example.org` is every name below it."""
        self.app = app
        self._names = {name for name in (*ALWAYS, *names) if not name.startswith("*.")}
        self._suffixes = tuple(name[1:] for name in (*ALWAYS, *names) if name.startswith("*."))
        self._known: set[bytes] = set()  # values of the header that were allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_allowed(scope):
            detail = "the Host header names another site; FEEDSIEVE_ALLOWED_HOSTS lists its names"
            await respond(Request(scope), HTTPStatus.BAD_REQUEST, detail)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if not hosts or route_path(scope) in _PROBES:
            return True
        if len(hosts) > 1:
            return False
        [host] = hosts
        if host in self._known:
            return True
        name = _without_port(host.decode("latin-1").lower())
        if not name or name in self._names or name.endswith(self._suffixes) or _is_address(name):
            if len(self._known) < 100:
                self._known.add(host)
            return True
        return False


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if colon and (port.isdecimal() or not port):
        host = name
    return host.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
