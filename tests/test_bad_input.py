"""Whatever comes in: a correct answer, or a 4xx that says what was wrong and what is allowed."""

import json
import sqlite3
import time
from urllib.parse import quote

import pytest
from serving import serve, wait_for
from test_service import BROWSER, Page

from feedsieve.cursor import Cursor
from feedsieve.message import Message
from feedsieve.store import MessageStore

JSON = {"Content-Type": "application/json"}


def post(server, body, headers=JSON):
    return server.client.post("/score", content=body, headers=headers)


def assert_problem(response, status, *said):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"title", "status", "detail"}
    assert problem["status"] == status
    for words in said:
        assert words in problem["detail"]


class TestQueries:
    @pytest.mark.parametrize("route", ["/feed", "/messages"])
    @pytest.mark.parametrize(
        ("limit", "said"),
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
    def test_limit(self, server, route, limit, said):
        assert_problem(server.client.get(f"{route}?limit={limit}"), 422, said)

    @pytest.mark.parametrize(
        "cursor", ["x", "%00", "' OR 1=1 --", "../../etc/passwd", "W10", "🏠", "A" * 5000]
    )
    def test_cursor(self, server, cursor):
        response = server.client.get("/feed", params={"cursor": cursor})
        assert_problem(response, 422, "cursor: not a cursor: pass the `next` of an earlier page")

    def test_a_cursor_of_a_model_that_never_scored(self, server):
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
    def test_identifiers(self, server, identifier):
        assert_problem(server.client.get(f"/messages/{identifier}"), 404, "no message")
        page = server.client.get(f"/messages/{identifier}", headers=BROWSER)
        assert page.status_code == 404
        assert "script" not in Page(page.text).tags
        assert server.client.get("/feed?limit=1").status_code == 200  # the table is still there

    def test_other_addresses_and_methods(self, server):
        assert_problem(server.client.get("/nothing"), 404, "/docs")
        assert_problem(server.client.get("/score"), 405, "answers POST")
        assert_problem(server.client.post("/feed"), 405, "answers GET, HEAD")
        assert server.client.post("/feed").headers["allow"] == "GET, HEAD"
        assert_problem(server.client.delete("/messages/1"), 405, "answers GET")


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "said"),
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
    def test_not_what_is_asked_for(self, server, body, said):
        assert_problem(post(server, body), 400, said)

    def test_too_many_texts(self, server):
        body = json.dumps({"texts": ["text"] * 257})
        assert_problem(post(server, body), 400, "texts: List should have at most 256 items")

    @pytest.mark.parametrize("text", ["я" * 10_001, "🏠" * 100_000])
    def test_a_text_too_long(self, server, text):
        response = post(server, json.dumps({"texts": ["fine", text]}))
        assert_problem(response, 400, "texts.1: String should have at most 10000 characters")
        assert len(response.content) < 500  # nothing of the text comes back

    def test_a_body_too_large(self, server):
        assert_problem(post(server, b" " * 31_000_000), 413, "at most 30,721,024 bytes")

    def test_a_body_too_large_that_does_not_say_so(self, server):
        def parts():
            for _ in range(40):
                yield b" " * 1_000_000

        assert_problem(post(server, parts()), 413, "at most 30,721,024 bytes")

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
    def test_another_media_type(self, server, media_type):
        body = b'{"texts": ["text"]}'
        assert_problem(post(server, body, {"Content-Type": media_type}), 415, "application/json")

    def test_a_media_type_that_http_forbids(self, server):
        """With httptools uvicorn's parser refuses it; without, we do."""
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
    def test_half_an_emoji_goes(self, server, body, meant):
        """As Python writes a text that was cut within one."""
        answer, expected = post(server, body), post(server, json.dumps({"texts": [meant]}))
        assert answer.status_code == 200, answer.text
        assert answer.json() == expected.json()

    def test_bad_input_leaves_no_trace_in_the_log(self, server):
        before = len(server.log.read_bytes())
        post(server, json.dumps({"texts": ["a secret"] * 257}))
        server.client.get("/feed?limit=x")
        added = server.log.read_bytes()[before:].decode()
        assert "Traceback" not in added
        assert "secret" not in added

    def test_a_path_with_a_line_end_stays_on_its_line(self, environment, tmp_path):
        """In the access log, which is off unless it is asked for."""
        asked = "services.feedsieve.logging.access.enabled=true"
        own = {"BENTOML_CONFIG_OPTIONS": asked, "FEEDSIEVE_DB": str(tmp_path / "new.db")}
        with serve(environment | own, tmp_path) as server:
            wait_for(server, "/messages/a%0aFORGED%20LINE%0d%e2%80%a8", lambda _: True)
            deadline = time.monotonic() + 10  # the line is written once the answer is sent
            while "FORGED" not in server.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            found = [line for line in server.log.read_text().splitlines() if "FORGED" in line]
        assert found
        assert not [line for line in found if line.startswith("FORGED")]


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
    """Identifiers of messages with such texts, stored while the server runs."""
    store = MessageStore.open(environment["FEEDSIEVE_DB"])
    identifiers = [f"odd/'{number}\"<b>&?#%" for number in range(len(TEXTS))]
    store.add(Message(*message) for message in zip(identifiers, TEXTS, strict=True))
    return identifiers


class TestMessageTexts:
    """No text of a message breaks a page, a query or an answer."""

    def test_each_has_an_answer_and_a_harmless_page(self, server, added):
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

    def test_they_are_scored_in_the_background(self, server, added, environment):
        deadline = time.monotonic() + 200  # after all of the sample, if that is not scored yet
        statement = (
            "SELECT count(*) FROM messages JOIN scores USING (fingerprint) WHERE id LIKE 'odd/%'"
        )
        count = -1
        while count != len(added) and time.monotonic() < deadline:
            time.sleep(0.2)
            with sqlite3.connect(environment["FEEDSIEVE_DB"]) as connection:
                [[count]] = connection.execute(statement)
        assert count == len(added)

    def test_every_page_of_the_feed_is_harmless(self, server, added):
        path, seen = "/feed?limit=100", 0
        while path:
            page = Page(server.client.get(path, headers=BROWSER).text)
            assert not {"script", "img"} & set(page.tags)
            seen += sum(link.startswith("/messages/odd") for link in page.links)
            path = next((link for link in page.links if "cursor=" in link), None)
        assert seen == len(added)
