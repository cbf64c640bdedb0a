"""A path before all routes: X-Forwarded-Prefix, FEEDSIEVE_ROOT_PATH, and what is not followed."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from serving import serve, wait_for
from test_service import BROWSER, Page

from feedsieve.settings import is_root_path

PREFIX = "X-Forwarded-Prefix"
PAGES = [
    "/feed",
    "/feed/",
    "/feed?limit=3",
    "/messages/7",
    "/messages/7?explain=1",
    "/nothing",
    "/feed?limit=x",
]
HOSTILE = [
    "//evil.example",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "/chat//evil.example",
    '/"><script>alert(1)</script>',
    "/'onclick='alert(1)",
    "/a b",
    "/<b>",
    "/%2f%2fevil.example",
    "/%0d%0aSet-Cookie:a=b",
    "/..",
    "/./chat",
    "/chat/../other",
    "/@evil.example",
    "/chat?x=",
    "/chat#",
    "/chat;x",
    "/a, /b",
    "chat",
    "/" + "x" * 200,
    "/x" * 4000,
    "/чат",
    "",
    "/",
]


@pytest.fixture(scope="module")
def rooted(small_environment, tmp_path_factory):
    """A server that clients see under a path."""
    own = {"FEEDSIEVE_ROOT_PATH": "/team/chat/"}
    with serve(small_environment | own, tmp_path_factory.mktemp("rooted")) as server:
        wait_for(server, "/feed", lambda answer: answer.is_success and answer.json()["items"])
        yield server


def get(server, path, prefix=None, headers=BROWSER):
    forwarded = {PREFIX: prefix.encode()} if prefix is not None else {}
    return server.client.get(path, headers=headers | forwarded)


def links(answer):
    """Return the addresses that a page leads to."""
    return Page(answer.text).links


class TestForwardedPrefix:
    @pytest.mark.parametrize("prefix", ["/chat", "/chat/", "/a/b-c_d.e~f/0", "/feed", "/messages"])
    @pytest.mark.parametrize("path", PAGES)
    def test_every_link_of_a_page_begins_with_it(self, small_server, path, prefix):
        plain, answer = get(small_server, path), get(small_server, path, prefix)
        assert answer.status_code == plain.status_code
        assert links(plain)
        assert links(answer) == [prefix.removesuffix("/") + link for link in links(plain)]

    @pytest.mark.parametrize("prefix", ["/chat", "/feed", "/messages", "/docs"])
    def test_links_lead_back_through_the_proxy(self, small_server, prefix):
        seen, following = set(), ["/", "/feed?limit=11", "/messages/7"]
        while following:
            path = following.pop()
            answer = get(small_server, path, prefix)
            if answer.is_redirect:
                found = [urlsplit(answer.headers["location"]).path]
            else:
                assert answer.status_code == 200, path
                found = links(answer)
            for link in found:
                assert link.startswith(f"{prefix}/")
                inner = link.removeprefix(prefix)  # as the proxy does
                if inner not in seen:
                    seen.add(inner)
                    following.append(inner)
        assert len(seen) > 30  # the feed's pages and its messages

    @pytest.mark.parametrize(
        ("path", "location"),
        [("/", "/chat/feed"), ("/version/", "/chat/version"), ("/docs/", "/chat/docs")],
    )
    def test_redirects_begin_with_it(self, small_server, path, location):
        target = urlsplit(get(small_server, path, "/chat").headers["location"])
        assert target.path == location
        assert target.netloc in ("", small_server.client.base_url.netloc.decode())

    def test_docs_and_openapi_begin_with_it(self, small_server):
        page = get(small_server, "/docs", "/chat").text
        addresses = re.findall(r"""(?:href|src|url)(?:=|: )["']([^"']+)""", page)
        assert len(addresses) == 4
        for address in addresses:
            assert address.startswith("/chat/")
            inner = address.removeprefix("/chat")
            assert get(small_server, inner, "/chat").status_code == 200, inner
        document = get(small_server, "/openapi.json", "/chat").json()
        assert document["servers"] == [{"url": "/chat"}]
        assert "/score" in document["paths"]
        assert get(small_server, "/openapi.json").json()["servers"] == [{"url": "."}]

    def test_programs_get_the_same_answers(self, small_server):
        for path in ("/feed", "/messages/7", "/version", "/readyz"):
            plain, answer = (get(small_server, path, prefix, {}) for prefix in (None, "/feed"))
            assert (answer.status_code, answer.content) == (200, plain.content)
        answer = small_server.client.post("/score", json={"texts": ["a"]}, headers={PREFIX: "/x"})
        assert answer.status_code == 200
        headers = {PREFIX: "/x", "Content-Type": "application/json"}
        answer = small_server.client.post("/score", content=b"{", headers=headers)
        assert answer.status_code == 400

    def test_cached_pages_of_prefixes_are_not_mixed(self, small_server):
        prefixes = [None, "/a", "/b"] * 20
        with ThreadPoolExecutor(8) as clients:
            answers = list(
                clients.map(lambda prefix: get(small_server, "/feed?limit=2", prefix), prefixes)
            )
        for prefix, answer in zip(prefixes, answers, strict=True):
            assert all(link.startswith(f"{prefix or ''}/") for link in links(answer))
            assert links(answer)[0].startswith(f"{prefix or ''}/messages/")
        assert len({answer.headers["etag"] for answer in answers}) == 3

    def test_metrics_do_not_grow_with_prefixes(self, small_server):
        def series():
            return set(small_server.metric("feedsieve_request_seconds_count"))

        for path in ("/nothing", "/metrics"):
            get(small_server, path)
        before = series()
        for number in range(20):
            get(small_server, "/feed", f"/p{number}")
            get(small_server, f"/p{number}/feed", f"/p{number}")
        assert series() == before


class TestHostilePrefix:
    @pytest.mark.parametrize("prefix", HOSTILE)
    def test_it_changes_nothing(self, small_server, prefix):
        for path in ["/", "/version/", "/docs", "/openapi.json", *PAGES]:
            plain, answer = get(small_server, path), get(small_server, path, prefix)
            assert answer.status_code == plain.status_code
            assert answer.content == plain.content
            assert answer.headers.get("location") == plain.headers.get("location")
            assert set(answer.headers) == set(plain.headers)

    @pytest.mark.parametrize(
        "value", [b"/a\r\nSet-Cookie: a=b", b"/a\nSet-Cookie: a=b", b"/a\r\n b", b"/a\0b", b"\xff"]
    )
    def test_line_ends_and_control_characters_reach_no_header(self, small_server, value):
        head = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        address = ("127.0.0.1", small_server.client.base_url.port)
        with socket.create_connection(address, timeout=10) as plain:
            plain.sendall(head + b"X-Forwarded-Prefix: " + value + b"\r\n\r\n")
            answer = b""
            while part := plain.recv(4096):
                answer += part
        lines = answer.lower().split(b"\r\n")
        assert lines[0].split()[1] in (b"307", b"400")
        assert not [line for line in lines if line.startswith(b"set-cookie")]
        assert [line for line in lines if line.startswith(b"location:")] in (
            [],
            [b"location: /feed"],
            [b"location: /a/feed"],  # a header of its own follows
        )

    @pytest.mark.parametrize("path", HOSTILE)
    def test_it_is_no_root_path(self, path):
        assert not is_root_path(path)


class TestRootPath:
    @pytest.mark.parametrize("path", PAGES)
    def test_links_begin_with_it_whether_the_proxy_removes_it_or_not(self, rooted, path):
        removed, left = get(rooted, path), get(rooted, f"/team/chat{path}")
        assert links(removed)
        assert all(link.startswith("/team/chat/") for link in links(removed))
        assert (left.status_code, left.content) == (removed.status_code, removed.content)

    @pytest.mark.parametrize("path", ["/", "/team/chat/", "/team/chat"])
    def test_root_leads_to_the_feed(self, rooted, path):
        answer = rooted.client.get(path, headers=BROWSER, follow_redirects=True)
        assert answer.status_code == 200
        assert answer.url.path == "/team/chat/feed"

    def test_only_the_whole_path_counts(self, rooted):
        for path in ("/team", "/team/feed", "/team/chatter/feed", "/other/team/chat/feed"):
            assert get(rooted, path).status_code == 404

    def test_header_is_before_the_setting(self, rooted):
        assert get(rooted, "/", "/chat").headers["location"] == "/chat/feed"
        assert get(rooted, "/", "//evil.example").headers["location"] == "/team/chat/feed"

    def test_body_is_checked_under_it(self, rooted):
        for path in ("/score", "/team/chat/score"):
            answer = rooted.client.post(
                path, content=b"{", headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 400, answer.text
            assert rooted.client.post(path, json={"texts": ["a"]}).status_code == 200

    def test_metrics_know_the_route_under_it(self, rooted):
        rooted.client.get("/team/chat/version")
        series = rooted.metric("feedsieve_request_seconds_count")
        assert 'endpoint="/version",status="200"' in series
