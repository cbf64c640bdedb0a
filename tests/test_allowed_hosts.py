"""The Host header: names of other sites are refused, so that DNS rebinding reads nothing."""

import asyncio
import socket

import pytest
from serving import serve, wait_until_ready
from test_bad_input import assert_problem

from feedsieve.api.allowed_hosts import AllowedHostsMiddleware
from feedsieve.settings import Settings

ALWAYS = [
    "localhost",
    "LOCALHOST:3000",
    "localhost.",
    "app.localhost:3000",
    "127.0.0.1",
    "127.0.0.1:3000",
    "192.168.1.7:80",
    "[::1]:3000",
    "[::1]",
    "",
]
OTHERS = [
    "evil.example",
    "evil.example:3000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evillocalhost",
    "evil.example:127.0.0.1",
    "evil.example, localhost",
    "localhost@evil.example",
    "1.2.3",
    "\xff",
]


def status(names: tuple[str, ...], *hosts: str, path: str = "/feed") -> int:
    """Return the status of a request with these Host headers."""
    statuses = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    asyncio.run(AllowedHostsMiddleware(app, names)(scope, None, send))
    return statuses[0]


@pytest.mark.parametrize("host", ALWAYS)
def test_addresses_and_this_machine_are_allowed(host):
    assert status((), host) == 200


@pytest.mark.parametrize("host", OTHERS)
def test_names_of_other_sites_are_refused(host):
    assert status(("feed.example.org",), host) == 400


def test_listed_names_are_allowed():
    names = Settings(allowed_hosts="Feed.Example.org, *.chat.example.").allowed_hosts
    for host in ("feed.example.org", "FEED.example.org:443", "a.b.chat.example"):
        assert status(names, host) == 200
    for host in ("x.feed.example.org", "chat.example", "evilchat.example"):
        assert status(names, host) == 400


def test_two_hosts_are_refused():
    assert status((), "localhost", "localhost") == 400


def test_no_host_is_allowed():
    assert status(()) == 200


def test_probes_may_send_any_name():
    assert status((), "pod.internal", path="/readyz") == 200


@pytest.mark.parametrize("setting", ["https://example.org", "a b", "example.org:3000", "*."])
def test_bad_setting_is_named(setting):
    with pytest.raises(ValueError, match=r"is not a name such as feed\.example\.org"):
        Settings(allowed_hosts=setting)


def test_server_refuses_the_name_of_another_site(small_server):
    answer = small_server.client.get("/feed", headers={"Host": "evil.example"})
    assert_problem(answer, 400, "FEEDSIEVE_ALLOWED_HOSTS")
    page = {"Host": "evil.example", "Accept": "text/html"}
    answer = small_server.client.get("/feed", headers=page)
    assert answer.status_code == 400 and "Отдам" not in answer.text
    answer = small_server.client.post(
        "/messages", json={"id": "rebound", "text": "x"}, headers={"Host": "evil.example"}
    )
    assert_problem(answer, 400, "FEEDSIEVE_ALLOWED_HOSTS")


def test_request_of_http_1_0_without_host_is_answered(small_server):
    address = ("127.0.0.1", small_server.client.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_any_name_can_be_allowed(small_environment, tmp_path):
    with serve(small_environment | {"FEEDSIEVE_ALLOWED_HOSTS": "*"}, tmp_path) as server:
        wait_until_ready(server)
        assert server.client.get("/feed", headers={"Host": "evil.example"}).status_code == 200
