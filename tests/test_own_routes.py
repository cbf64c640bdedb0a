"""Requests that our routes answer without BentoML's application around them."""

import asyncio

import pytest

from feedsieve.api.own_routes import OwnRoutesMiddleware


def answered_by(method: str, path: str, root: str = "") -> str:
    """Return which application gets the request."""
    seen = []

    def application(name):
        async def run(_scope, _receive, _send):
            seen.append(name)

        return run

    middleware = OwnRoutesMiddleware(application("BentoML"), application("ours"))
    scope = {"type": "http", "method": method, "path": root + path, "root_path": root}
    asyncio.run(middleware(scope, None, None))
    [name] = seen
    return name


@pytest.mark.parametrize("root", ["", "/chat"])
@pytest.mark.parametrize("path", ["/readyz", "/feed", "/feed/", "/messages", "/messages/a/b"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_ours(method, path, root):
    assert answered_by(method, path, root) == "ours"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/score"),
        ("POST", "/messages"),  # its body is checked on the way to BentoML
        ("DELETE", "/messages/1"),
        ("GET", "/livez"),
        ("GET", "/feeds"),
        ("GET", "/messagesa"),
    ],
)
def test_everything_else_goes_on(method, path):
    assert answered_by(method, path) == "BentoML"
