"""API keys: who may read, score and write; rate limits by key; and what OpenAPI says of it."""

import binascii
import math
from base64 import b64decode
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from feedsieve.api import problems
from feedsieve.api.rendering import prefers_page
from feedsieve.api.root_path import route_path
from feedsieve.logs import request_context
from feedsieve.serving.key_cache import KeyCache, KeysUnknown
from feedsieve.settings import Settings
from feedsieve.store.keys import PREFIX, KeyScope

OPEN = frozenset({"/livez", "/readyz", "/healthz"})
"""Paths that are read without a key: whoever asks for them restarts servers, and has none."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "for browsers, to read: an API key as the password",
    },
}


class AuthenticationMiddleware:
    """Answers 401, 403 and 429 to requests that their API key, or its lack, does not allow.

    Nothing of the body is read before. Writing is whatever may change something: any new route is
    closed as those of today are. Keys are checked on open routes too, so that limits hold and a
    revoked key is noticed; credentials that are no keys of ours are ignored there, as a proxy may
    have asked for them.
    """

    def __init__(self, app: ASGIApp, keys: KeyCache, settings: Settings) -> None:
        self.app = app
        self.keys = keys
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not allowed, else None."""
        needed = scope_needed(scope["method"], route_path(scope))
        if needed is None:
            return None
        given = _given_key(scope)
        try:
            is_closed = self._is_closed(needed)
            if given is None:
                return _unauthorised(scope, needed, is_known=True) if is_closed else None
            return self._refusal_of_key(scope, needed, given, is_closed=is_closed)
        except KeysUnknown as error:
            return problems.unavailable(Request(scope), error)

    def _is_closed(self, needed: KeyScope) -> bool:
        """Return whether a key is needed. Raises KeysUnknown."""
        if needed == "read":
            return self.settings.reading_needs_key
        if needed == "score":
            return self.settings.scoring_needs_key
        return bool(self.keys.valid())

    def _refusal_of_key(
        self, scope: Scope, needed: KeyScope, given: str, *, is_closed: bool
    ) -> Response | None:
        try:
            key = self.keys.find(given)
        except KeysUnknown:
            if is_closed:
                raise
            return None
        if key is None:
            is_ours = given.startswith(PREFIX)
            return _unauthorised(scope, needed, is_known=False) if is_closed or is_ours else None
        if context := request_context.get():
            context.key = key.name
        if seconds := self.keys.seconds_to_wait(key):
            detail = f"this API key may send {key.requests_per_minute:,} requests a minute"
            response = problems.respond(Request(scope), HTTPStatus.TOO_MANY_REQUESTS, detail)
            response.headers["Retry-After"] = str(math.ceil(seconds))
            return response
        if is_closed and not key.allows(needed):
            detail = f"this API key lacks the scope {needed}"
            return problems.respond(Request(scope), HTTPStatus.FORBIDDEN, detail)
        return None


def scope_needed(method: str, path: str) -> KeyScope | None:
    """Return the scope that a request belongs to; None if it never needs a key."""
    if method in _SAFE_METHODS:
        return None if path in OPEN else "read"
    return "score" if path in ("/score", "/score/") else "write"


def with_security(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Add to an OpenAPI document how keys are sent, and the answers to those that do not do."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needed = scope_needed(method.upper(), path)
            if needed is None or "responses" not in operation:
                continue
            names = _SCHEMES if needed == "read" else ("bearer", "header")
            ways: list[dict[str, list[str]]] = [{name: []} for name in names]
            # Whether writing needs a key depends on whether there is one.
            closed = {"read": settings.reading_needs_key, "score": settings.scoring_needs_key}
            operation["security"] = ways if closed.get(needed) else [{}, *ways]
            statuses = (401, 403, 429, 503) if closed.get(needed, True) else (401, 429)
            answers = problems.documented(*statuses) | operation["responses"]
            operation["responses"] = {str(status): answer for status, answer in answers.items()}
    return document


def _given_key(scope: Scope) -> str | None:
    """Return what the request shows as a key, of X-API-Key or else of Authorization."""
    authorization = None
    for name, value in scope["headers"]:  # Headers would take several times as long
        if name == b"x-api-key":
            return str(value, "latin-1").strip()
        if name == b"authorization":
            authorization = value
    if authorization is None:
        return None
    scheme, _, credentials = str(authorization, "latin-1").partition(" ")
    scheme, credentials = scheme.lower(), credentials.strip()
    if scheme == "bearer":
        return credentials
    # Browsers send them with requests that pages of other sites make, which could write.
    if scheme == "basic" and scope["method"] in _SAFE_METHODS:
        return _password(credentials)
    return None


def _password(credentials: str) -> str | None:
    try:
        pair = b64decode(credentials, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return None
    return pair.partition(":")[2]


def _unauthorised(scope: Scope, needed: KeyScope, *, is_known: bool) -> Response:
    """Return 401, which lets browsers ask for a key where they read pages."""
    request = Request(scope)
    detail = "this API key is not valid: it is revoked, or another server's"
    challenge = 'Bearer realm="feedsieve"'
    if is_known:
        detail = (
            f"an API key with the scope {needed} is needed: send the header"
            " Authorization: Bearer KEY, or X-API-Key: KEY"
        )
    else:
        challenge += ', error="invalid_token"'
    if needed == "read" and prefers_page(request.headers.get("accept", "")):
        challenge = 'Basic realm="feedsieve", charset="UTF-8"'
    response = problems.respond(request, HTTPStatus.UNAUTHORIZED, detail)
    response.headers["WWW-Authenticate"] = challenge
    return response
