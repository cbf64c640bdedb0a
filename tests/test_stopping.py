"""SIGTERM: what was sent is answered, further connections are refused, the exit code is 0."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from http.client import HTTPConnection

import httpx
import pytest
import uvicorn
from serving import serve, wait_until_ready

from feedsieve.api.http_protocol import HttpProtocol
from feedsieve.api.http_server import HttpServer

CLIENTS = 32
WITHIN = float(os.environ.get("FEEDSIEVE_TEST_LOAD_SECONDS", "2"))  # before SIGTERM
MAX_SECONDS = 10.0  # from SIGTERM to the end


@pytest.fixture
def server(small_home, tmp_path):
    environment = {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(tmp_path / "store.db")}
    with serve(environment, tmp_path) as server:
        wait_until_ready(server)
        yield server


async def load(url: str, outcomes: Counter[str]) -> None:
    """Send requests by many clients until each is refused a connection; count the outcomes."""

    async def client(number: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=number % 2)  # half open a new one each time
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as http:
            for turn in range(1_000_000):
                try:
                    if turn % 3:
                        texts = [f"сдаю квартиру {number} {turn}"]
                        answer = await http.post("/score", json={"texts": texts})
                    else:
                        answer = await http.get("/feed")
                except httpx.ConnectError:
                    outcomes["refused"] += 1
                    return
                except httpx.TransportError as error:
                    outcomes[f"lost: {error!r}"] += 1
                    return
                outcomes[str(answer.status_code)] += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def terminate_under_load(server) -> tuple[Counter[str], float]:
    outcomes: Counter[str] = Counter()
    clients = asyncio.create_task(load(server.url, outcomes))
    await asyncio.sleep(WITHIN)
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.process.wait, 30)
    seconds = time.monotonic() - started
    await asyncio.wait_for(clients, 30)
    return outcomes, seconds


def test_sigterm_under_load_loses_no_request(server):
    outcomes, seconds = asyncio.run(terminate_under_load(server))
    assert set(outcomes) == {"200", "refused"}, outcomes
    assert outcomes["refused"] == CLIENTS
    assert server.process.returncode == 0
    assert seconds < MAX_SECONDS


async def unaccepted_request() -> bytes:
    """Return the answer to a request whose connection waits in the kernel when the server ends."""

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})

    config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_config=None)
    config.load()
    server = HttpServer(config, stop_seconds=5, on_exit=lambda: None)
    server.lifespan, server.servers = config.lifespan_class(config), []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with socket.create_connection(listening.getsockname(), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await server.shutdown([listening])  # which no turn of the loop has accepted
            return client.recv(65536)


def test_connection_that_is_not_accepted_yet_is_answered():
    assert b"answered" in asyncio.run(unaccepted_request())


def test_open_connection_is_answered_once_more_and_closed(server):
    connection = HTTPConnection("127.0.0.1", server.client.base_url.port, timeout=10)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    opened = connection.sock
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert answer.status == 503
    assert answer.getheader("Connection") == "close"
    assert connection.sock in (opened, None)  # http.client opens another one silently
    assert server.process.wait(15) == 0


def test_first_request_that_offers_to_upgrade_is_answered_while_the_server_ends(server):
    address = ("127.0.0.1", server.client.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        connection.sendall(
            b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            b"Upgrade: h2c\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(15) == 0


def test_request_that_never_ends_is_cut_off_at_the_deadline(small_home, tmp_path):
    environment = {
        "BENTOML_HOME": str(small_home),
        "FEEDSIEVE_DB": str(tmp_path / "store.db"),
        "FEEDSIEVE_STOP_SECONDS": "1",
    }
    with serve(environment, tmp_path) as server:
        wait_until_ready(server)
        address = ("127.0.0.1", server.client.base_url.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(
                b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            time.sleep(0.2)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
            assert time.monotonic() - started < 6
