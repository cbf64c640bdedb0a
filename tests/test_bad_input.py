"""Bad input gets a 4xx that says what is allowed, odd input a correct answer."""

import json
import sqlite3
import time
from urllib.parse import quote

import pytest
from serving import serve, wait_for
from test_service import BROWSER, Page

from feedsieve.message import Message
from feedsieve.store.feed import Cursor
from feedsieve.store.store import MessageStore

JSON = {"Content-Type": "application/json"}


def post(server, body, headers=JSON):
    return server.client.post("/score", content=body, headers=headers)


def assert_problem(response, status, *reason):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"title", "status", "detail"}
    assert problem["status"] == status
    for part in reason:
        assert part in problem["detail"]


class TestQueries:
    @pytest.mark.parametrize("route", ["/feed", "/messages"])
    @pytest.mark.parametrize(
        ("limit", "reason"),
        [
            ("0", "limit: Input should be greater than or equal to 1"),
            ("-1", "limit: Input should be greater than or equal to 1"),
            ("x", "limit: Input should be a valid integer"),
            ("1.5", "limit: Input should be a valid integer"),
            ("", "limit: Input should be a valid integer"),
            ("%00", "limit: Input should be a valid integer"),
            ("101", "limit: Input should be less than or equal to 100"),
            ("1000000000", "limit: Input should be less than or equal to 100"),
            ("9" * 5000, "limit:"),
        ],
    )
    def test_bad_limit_is_rejected(self, server, route, limit, reason):
        assert_problem(server.client.get(f"{route}?limit={limit}"), 422, reason)

    @pytest.mark.parametrize(
        "cursor", ["x", "%00", "' OR 1=1 --", "../../etc/passwd", "W10", "🏠", "A" * 5000]
    )
    def test_bad_cursor_is_rejected(self, server, cursor):
        response = server.client.get("/feed", params={"cursor": cursor})
        assert_problem(response, 422, "cursor: not a cursor: pass the `next` of an earlier page")

    def test_cursor_of_an_unknown_model_has_no_items(self, server):
        cursor = Cursor("feedsieve-classifier:gone", 0.5, "0" * 32, 3).encode()
        answer = server.client.get("/feed", params={"cursor": cursor})
        assert answer.json() == {"model": "feedsieve-classifier:gone", "items": [], "next": None}

    @pytest.mark.parametrize(
        "identifier",
        [
            "nobody",
            "'",
            '"',
            "1' OR '1'='1",
            "1; DROP TABLE messages",
            "%00",
            "1%00",
            "%ff%fe",
            "%F0%9F%8F%A0",
            "..%2F..%2Fetc%2Fpasswd",
            "a/b",
            "%",
            "x" * 5000,
            "<script>alert(1)</script>",
        ],
    )
    def test_unknown_identifier_is_404(self, server, identifier):
        assert_problem(server.client.get(f"/messages/{identifier}"), 404, "no message")
        page = server.client.get(f"/messages/{identifier}", headers=BROWSER)
        assert page.status_code == 404
        assert "script" not in Page(page.text).tags
        assert server.client.get("/feed?limit=1").status_code == 200  # the table is still there

    def test_other_paths_and_methods_are_problems(self, server):
        assert_problem(server.client.get("/nothing"), 404, "/docs")
        assert_problem(server.client.get("/score"), 405, "answers POST")
        assert_problem(server.client.post("/feed"), 405, "answers GET, HEAD")
        assert server.client.post("/feed").headers["allow"] == "GET, HEAD"
        assert_problem(server.client.put("/messages/1"), 405, "answers DELETE, GET, HEAD")
        assert_problem(server.client.put("/messages"), 405, "answers GET, HEAD, POST")


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "Invalid JSON"),
            (b"{", "Invalid JSON"),
            (b"\xff\xfe", "Invalid JSON"),
            (b"null", "Input should be"),
            (b"[]", "Input should be"),
            (b'"text"', "Input should be"),
            (b"{}", "texts: Field required"),
            (b'{"texts": null}', "texts: Input should be a valid array"),
            (b'{"texts": "one"}', "texts: Input should be a valid array"),
            (b'{"texts": [1]}', "texts.0: Input should be a valid string"),
            (b'{"texts": ["ok", null]}', "texts.1: Input should be a valid string"),
            (b'{"texts": [["ok"]]}', "texts.0: Input should be a valid string"),
            (b'{"texts": []}', "texts: List should have at least 1 item"),
            (b'{"texts": ["\\ud800"}', "Invalid JSON"),
            (b'{"texts": ["\\ud800", 1]}', "texts.1: Input should be a valid string"),
            (b"[" * 100_000, "Invalid JSON"),
        ],
    )
    def test_bad_body_is_rejected(self, server, body, reason):
        assert_problem(post(server, body), 400, reason)

    def test_too_many_texts_are_rejected(self, server):
        body = json.dumps({"texts": ["text"] * 257})
        assert_problem(post(server, body), 400, "texts: List should have at most 256 items")

    @pytest.mark.parametrize("text", ["я" * 10_001, "🏠" * 100_000])
    def test_too_long_text_is_rejected_and_not_quoted(self, server, text):
        response = post(server, json.dumps({"texts": ["fine", text]}))
        assert_problem(response, 400, "texts.1: String should have at most 10000 characters")
        assert len(response.content) < 500  # the text is not quoted

    def test_too_large_body_is_rejected(self, server):
        assert_problem(post(server, b" " * 31_000_000), 413, "at most 6,500,000 bytes")

    def test_too_large_chunked_body_is_rejected(self, server):
        def parts():
            for _ in range(40):
                yield b" " * 1_000_000

        assert_problem(post(server, parts()), 413, "at most 6,500,000 bytes")

    @pytest.mark.parametrize(
        "media_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/vnd.bentoml+pickle",
            "application/vnd.apache.arrow.file",
            "nonsense",
        ],
    )
    def test_other_media_type_is_rejected(self, server, media_type):
        body = b'{"texts": ["text"]}'
        assert_problem(post(server, body, {"Content-Type": media_type}), 415, "application/json")

    def test_body_without_a_media_type_is_rejected(self, server):
        """A page of another site may send one without asking, unlike application/json."""
        assert_problem(
            post(server, b'{"texts": ["text"]}', {}), 415, "Content-Type: application/json"
        )

    def test_forbidden_media_type_is_rejected(self, server):
        """With httptools uvicorn's parser rejects it; without, we do."""
        answer = post(server, b'{"texts": ["text"]}', {"Content-Type": "\x7f"})
        assert answer.status_code in (400, 415)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "\x00",
            "\x00сдам\x00",
            "\ufeff\u200b",
            "🏠" * 10_000,
            "<script>alert(1)</script>",
            "' OR 1=1 --",
            "{{ 7 * 7 }}",
            "%s %n",
            "\u202e\u0301" * 500,
            "中文字" * 100,
            "a" * 10_000,
        ],
    )
    def test_odd_texts_are_scored(self, server, text):
        response = post(server, json.dumps({"texts": [text]}))
        assert response.status_code == 200
        [answer] = response.json()
        assert 0 < answer["score"] < 1

    @pytest.mark.parametrize(
        ("body", "meant"),
        [
            (b'{"texts": ["\\ud83d flat to let"]}', " flat to let"),
            (b'{"texts": ["flat \\udc00\\ud800to let"]}', "flat to let"),
            (b'{"texts": ["\\ud83c\\udfe0 flat \\uD83Cto let"]}', "🏠 flat to let"),
            (b'{"texts": ["\\ud800"]}', ""),
        ],
    )
    def test_lone_surrogates_are_removed(self, server, body, meant):
        """As Python writes a text that was cut within an emoji."""
        answer, expected = post(server, body), post(server, json.dumps({"texts": [meant]}))
        assert answer.status_code == 200, answer.text
        assert answer.json() == expected.json()

    def test_bad_input_is_not_logged(self, server):
        before = len(server.log.read_bytes())
        post(server, json.dumps({"texts": ["a secret"] * 257}))
        server.client.get("/feed?limit=x")
        added = server.log.read_bytes()[before:].decode()
        assert "Traceback" not in added
        assert "secret" not in added

    def test_path_with_line_ends_is_one_log_line(self, small_environment, tmp_path):
        """In the access log, which is off by default."""
        option = "services.feedsieve.logging.access.enabled=true"
        own = {"BENTOML_CONFIG_OPTIONS": option, "FEEDSIEVE_DB": str(tmp_path / "new.db")}
        with serve(small_environment | own, tmp_path) as server:
            wait_for(server, "/messages/a%0aFORGED%20LINE%0d%e2%80%a8", lambda _: True)
            deadline = time.monotonic() + 10  # the line is written after the answer is sent
            while "FORGED" not in server.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            lines = [line for line in server.log.read_text().splitlines() if "FORGED" in line]
        assert lines
        assert not [line for line in lines if line.startswith("FORGED")]


TEXTS = (
    "<script>document.title='broken'</script>",
    "</p></li></ol><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    '" onmouseover="alert(1)',
    "javascript:alert(1) https://example.com/<b>",
    "\ud83c\udfe0 \ud800 lone",
    "🏠" * 100_000,
    "Сдаётся" + "\x00" + " квартира",
)


@pytest.fixture(scope="module")
def added(server, environment):
    """Identifiers of messages with odd texts, stored while the server runs."""
    store = MessageStore.open(environment["FEEDSIEVE_DB"])
    identifiers = [f"odd/'{number}\"<b>&?#%" for number in range(len(TEXTS))]
    store.add(Message(*message) for message in zip(identifiers, TEXTS, strict=True))
    return identifiers


class TestMessageTexts:
    """No text breaks a page, a query or an answer."""

    def test_odd_messages_have_an_answer_and_a_harmless_page(self, server, added):
        for identifier, text in zip(added, TEXTS, strict=True):
            path = f"/messages/{quote(identifier, safe='')}"
            answer = server.client.get(path)
            assert answer.status_code == 200, answer.text
            assert answer.json()["id"] == identifier
            response = server.client.get(path, headers=BROWSER)
            assert response.status_code == 200
            page = Page(response.text)
            assert not {"script", "img"} & set(page.tags)
            assert not {"onerror", "onmouseover", "src"} & page.attributes
            if text.isascii():
                assert text in page.text

    def test_odd_messages_are_scored_by_the_backfill(self, server, added, environment):
        deadline = time.monotonic() + 200  # after the sample, if that is not scored yet
        statement = (
            "SELECT count(*) FROM messages JOIN scores USING (fingerprint) WHERE id LIKE 'odd/%'"
        )
        count = -1
        while count != len(added) and time.monotonic() < deadline:
            time.sleep(0.2)
            with sqlite3.connect(environment["FEEDSIEVE_DB"]) as connection:
                [[count]] = connection.execute(statement)
        assert count == len(added)

    def test_feed_pages_with_odd_messages_are_harmless(self, server, added):
        path, seen = "/feed?limit=100", 0
        while path:
            page = Page(server.client.get(path, headers=BROWSER).text)
            assert not {"script", "img"} & set(page.tags)
            seen += sum(link.startswith("/messages/odd") for link in page.links)
            path = next((link for link in page.links if "cursor=" in link), None)
        assert seen == len(added)
