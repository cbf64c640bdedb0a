"""Routes that leave FastAPI out where there is no query."""

import asyncio
from collections.abc import Callable
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from feedsieve.routes import PlainRoute


@pytest.fixture(scope="module")
def get() -> Callable[[str], httpx.Response]:
    web = FastAPI()
    web.router.route_class = PlainRoute

    @web.get("/plain/{name:path}")
    async def plain(
        name: str, request: Request, size: Annotated[int, Query(ge=1)] = 10
    ) -> Response:
        return JSONResponse([name, size, request.method])

    @web.get("/in-a-thread")
    def in_a_thread(size: Annotated[int, Query(ge=1)] = 10) -> list[int]:
        return [size]

    async def ask(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return lambda path: asyncio.run(ask(path))


@pytest.mark.parametrize("name", ["a", "a/b", "%2F", "кот"])
def test_with_a_query_as_without(get, name):
    expected = get(f"/plain/{name}?size=10").json()
    assert expected[1:] == [10, "GET"]
    assert get(f"/plain/{name}").json() == expected


def test_a_query_is_read_and_checked(get):
    assert get("/plain/a?size=3").json() == ["a", 3, "GET"]
    assert get("/plain/a?size=0").status_code == 422


def test_without_a_query_fastapi_reads_nothing(get, monkeypatch):
    def fail(*_arguments, **_named):
        raise AssertionError("FastAPI was asked")

    monkeypatch.setattr("fastapi.routing.solve_dependencies", fail)
    assert get("/plain/a").json() == ["a", 10, "GET"]
    with pytest.raises(AssertionError, match="FastAPI was asked"):
        get("/plain/a?size=3")


def test_other_functions_are_left_to_fastapi(get):
    assert get("/in-a-thread").json() == [10]
    assert get("/in-a-thread?size=0").status_code == 422
