"""Connections that would cost much: large or slow heads, trailers, answers that nobody reads."""

import asyncio
import time

import pytest
import uvicorn
from test_http_clients import BODY, CHUNKED, GET, HEAD, connect
from uvicorn.server import ServerState

from feedsieve.api.http_protocol import HEAD_SECONDS, HttpProtocol


class TestHeads:
    def test_too_many_headers_are_431(self, small_server):
        with connect(small_server) as connection:
            many = b"".join(b"X-%d: 1\r\n" % number for number in range(101))
            connection.send(GET + many + b"\r\n")
            assert connection.read()[0] == 431
            assert connection.is_closed()

    @pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["endless", "complete"])
    def test_large_header_is_431(self, small_server, end):
        with connect(small_server) as connection:
            connection.send(GET + b"Cookie: ", b"x" * 20_000, b"x" * 20_000 + end)
            assert connection.read()[0] == 431
            assert connection.is_closed()

    def test_long_address_is_431(self, small_server):
        with connect(small_server) as connection:
            connection.send(
                b"GET /feed?q=" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            assert connection.read()[0] == 431

    def test_headers_of_usual_size_pass(self, small_server):
        with connect(small_server) as connection:
            connection.send(GET + b"Cookie: " + b"x" * 16_000 + b"\r\n\r\n")
            assert connection.read()[0] == 200

    def test_unfinished_head_is_closed_in_time(self, small_server):
        with connect(small_server) as slow, connect(small_server) as silent:
            slow.socket.settimeout(HEAD_SECONDS + 10)
            silent.socket.settimeout(HEAD_SECONDS + 10)
            started = time.monotonic()
            slow.send(GET)
            assert slow.read()[0] == 408
            assert silent.is_closed()
            assert HEAD_SECONDS - 1 < time.monotonic() - started < HEAD_SECONDS + 8

    def test_endless_trailers_close_the_connection(self, small_server):
        with connect(small_server) as connection:
            connection.send(GET + CHUNKED + b"\r\n0\r\n")
            connection.send(*[b"a: " + b"b" * 20_000 + b"\r\n"] * 2)
            connection.read()  # the answer, which came with the head
            assert connection.is_closed()

    def test_body_in_many_small_chunks_is_read(self, small_server):
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
        with connect(small_server) as connection:
            connection.send(HEAD + CHUNKED + b"\r\n", chunks)
            assert connection.read()[0] == 200

    def test_line_end_after_a_request_does_not_keep_a_connection_open(self, small_server):
        with connect(small_server) as connection:
            connection.send(GET + b"\r\n", b"\r\n")
            assert connection.read()[0] == 200
            connection.send(b"\r\n")
            connection.socket.settimeout(15)  # uvicorn closes an idle connection after 5 s
            assert connection.is_closed()


def test_client_that_does_not_read_its_answer_is_disconnected(monkeypatch):
    monkeypatch.setattr("feedsieve.api.http_protocol.WRITE_SECONDS", 0.3)
    ended = asyncio.Event()

    async def app(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(100):
                chunk = b"x" * 1_000_000
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            ended.set()

    async def run():
        state = ServerState()
        config = uvicorn.Config(app, lifespan="off")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        _reader, writer = await asyncio.open_connection(*address, limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(1)
        assert not state.connections
        await asyncio.wait_for(ended.wait(), 5)
        writer.close()
        server.close()

    asyncio.run(run())
