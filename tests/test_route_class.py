import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from feedsieve.api.route_class import DirectRoute, HeadRoute


@pytest.fixture
def web() -> FastAPI:
    web = FastAPI()
    web.router.route_class = HeadRoute

    @web.get("/messages/{name:path}")
    async def messages(name: str, request: Request) -> Response:
        return JSONResponse([name, request.method])

    @web.post("/messages")
    def post() -> list[int]:
        return [1]

    return web


def ask(web: FastAPI, method: str, path: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path)

    return asyncio.run(send())


@pytest.mark.parametrize("name", ["a", "a/b", "%2F", "кот"])
def test_head_has_the_headers_of_get(web, name):
    got, head = (ask(web, method, f"/messages/{name}") for method in ("GET", "HEAD"))
    assert got.json()[1] == "GET"
    assert head.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"]


def test_head_on_a_post_route_is_405(web):
    assert ask(web, "HEAD", "/messages").status_code == 405


def test_head_is_not_documented(web):
    assert set(web.openapi()["paths"]["/messages/{name}"]) == {"get"}


class TestDirectRoute:
    @pytest.fixture
    def web(self) -> FastAPI:
        web, direct = FastAPI(), APIRouter(route_class=DirectRoute)

        @direct.get("/plain/{name:path}")
        async def plain(
            name: str, request: Request, size: Annotated[int, Query(ge=1)] = 10
        ) -> Response:
            return JSONResponse([name, size, request.method])

        web.include_router(direct)
        return web

    @pytest.mark.parametrize("name", ["a", "a/b", "%2F", "кот"])
    def test_answer_without_a_query_equals_that_with_defaults(self, web, name):
        expected = ask(web, "GET", f"/plain/{name}?size=10").json()
        assert expected[1:] == [10, "GET"]
        assert ask(web, "GET", f"/plain/{name}").json() == expected

    def test_query_is_read_and_checked(self, web):
        assert ask(web, "GET", "/plain/a?size=3").json() == ["a", 3, "GET"]
        assert ask(web, "GET", "/plain/a?size=0").status_code == 422

    def test_fastapi_reads_nothing_without_a_query(self, web, monkeypatch):
        def fail(*_arguments, **_named):
            raise AssertionError("FastAPI was called")

        monkeypatch.setattr("fastapi.routing.solve_dependencies", fail)
        assert ask(web, "GET", "/plain/a").json() == ["a", 10, "GET"]
        with pytest.raises(AssertionError, match="FastAPI was called"):
            ask(web, "GET", "/plain/a?size=3")
