"""Log lines: one each, with the request's id, without texts and keys; as text or JSON."""

import asyncio
import io
import json
import logging
import re
from contextlib import suppress

import pytest

from feedsieve.api.request_log import AccessLog, RequestLogMiddleware
from feedsieve.errors import FeedsieveError
from feedsieve.logs import JsonLines, RequestContext, ServerLines, request_context
from feedsieve.store.keys import new_key

SECRET = "тайный текст, +357 99 123456"


@pytest.fixture(params=["text", "json"])
def form(request):
    return request.param


@pytest.fixture
def log(form):
    """Return a logger as the server's, and a function that gives the lines it has written."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(ServerLines(names_request=form == "text"))
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(message)s"))
    logger = logging.Logger("feedsieve")
    logger.addHandler(handler)
    return logger, lambda: written.getvalue()


@pytest.fixture
def in_request():
    token = request_context.set(RequestContext("request-7", "bot"))
    yield
    request_context.reset(token)


class TestServerLines:
    @pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x1b[31m", "\x85"])
    def test_record_is_one_line(self, log, end):
        logger, written = log
        logger.info("deleted %s", f"a{end}FORGED")
        assert len(written().splitlines()) == 1
        assert end not in written().removesuffix("\n")

    def test_record_has_the_id_of_the_request(self, log, in_request):
        logger, written = log
        logger.error("failed")
        assert "request-7" in written()

    def test_record_of_no_request_has_no_id(self, log):
        logger, written = log
        logger.error("failed")
        assert "request" not in written()

    def test_key_is_hidden(self, log):
        logger, written = log
        key = new_key()
        logger.error("%s and %s", key, f"Bearer {key}")
        assert key[3:] not in written()
        assert "fs_..." in written()

    def test_trace_has_places_and_types_without_messages(self, log, in_request):
        logger, written = log
        try:
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise ValueError(f"bad text {SECRET!r}") from error
        except ValueError:
            logger.exception("GET /feed failed")
        for part in ("тайный", "99 123456", "\\u0442", json.dumps(SECRET)[1:-1]):
            assert part not in written()
        for part in ("KeyError", "ValueError", "test_logs.py", "GET /feed failed", "request-7"):
            assert part in written()

    def test_trace_keeps_our_own_messages(self, log):
        logger, written = log
        try:
            raise FeedsieveError("the store is gone")
        except FeedsieveError:
            logger.exception("failed")
        assert "FeedsieveError: the store is gone" in written()


class TestJson:
    def test_line_is_json_with_the_same_fields(self, in_request):
        written = io.StringIO()
        handler = logging.StreamHandler(written)
        handler.addFilter(ServerLines(names_request=False))
        handler.setFormatter(JsonLines())
        logger = logging.Logger("feedsieve")
        logger.addHandler(handler)
        logger.warning('a "b"\n%s', "ü")
        line = json.loads(written.getvalue())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("time"))
        assert line == {
            "level": "warning",
            "logger": "feedsieve",
            "message": 'a "b"\\nü',
            "request_id": "request-7",
        }


def access(form, *requests, headers=(), answer=b"answer", status=200, fails=False):
    """Return the access log of requests, and the headers of their answers."""
    written, sent = io.StringIO(), []

    async def app(scope, receive, send):
        request_context.get().key = "bot"
        if fails:
            raise RuntimeError(SECRET)
        shared = [(b"etag", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": shared})
        await send({"type": "http.response.body", "body": answer[:2], "more_body": True})
        await send({"type": "http.response.body", "body": answer[2:]})
        assert len(shared) == 1  # cached answers share their list

    async def send(message):
        sent.append(message)

    async def run():
        log = AccessLog(form, written)
        middleware = RequestLogMiddleware(app, log)
        for method, path in requests:
            scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
            with suppress(RuntimeError):
                await asyncio.create_task(middleware(scope, None, send))
        assert written.getvalue() == ""  # lines are written together
        await asyncio.sleep(0.3)

    asyncio.run(run())
    starts = [dict(message["headers"]) for message in sent if "status" in message]
    return written.getvalue().splitlines(), starts


class TestAccessLog:
    def test_line_has_route_status_size_id_and_key(self, form):
        requests = ("GET", f"/messages/{SECRET}"), ("POST", f"/{SECRET}"), ("HEAD", "/feed")
        lines, starts = access(form, *requests, headers=[(b"x-request-id", b"mine")])
        assert [start[b"x-request-id"] for start in starts] == [b"mine"] * 3
        if form == "json":
            found = [json.loads(line) for line in lines]
            for line in found:
                assert line.pop("time") and line.pop("ms") >= 0
                assert line["logger"] == "feedsieve.access" and line["key"] == "bot"
            assert [(line["method"], line["route"], line["bytes"]) for line in found] == [
                ("GET", "/messages/{identifier}", 6),
                ("POST", "other", 6),
                ("HEAD", "/feed", 0),
            ]
            assert {(line["status"], line["request_id"]) for line in found} == {(200, "mine")}
        else:
            rest = r"200 \d+\.\d ms 6 bytes request=mine key=bot"
            assert re.search(rf"\[access\] GET /messages/\{{identifier\}} {rest}$", lines[0])
            assert re.search(rf"\[access\] POST other {rest}$", lines[1])
        assert len(lines) == 3
        assert not [line for line in lines if "тайный" in line or "123456" in line]

    @pytest.mark.parametrize(
        "given",
        [b"", b"a b", b"a\nb", b"x" * 65, b"\xff", b'"', b"a\x1b[0m", "é".encode(), b"{}", b"a%0a"],
    )
    def test_id_that_is_not_plain_is_replaced(self, form, given):
        lines, [start] = access(form, ("GET", "/feed"), headers=[(b"x-request-id", given)])
        made = start[b"x-request-id"].decode()
        assert re.fullmatch("[0-9a-f]{32}", made)
        assert made in lines[0]

    def test_ids_that_are_made_differ(self):
        _lines, starts = access("text", *[("GET", "/feed")] * 100)
        assert len({start[b"x-request-id"] for start in starts}) == 100

    def test_request_without_an_answer_is_logged(self, form):
        [line], _starts = access(form, ("GET", "/feed"), fails=True)
        assert "499" in line

    def test_broken_stream_stops_no_request(self):
        class Full(io.StringIO):
            def write(self, _text):
                raise OSError(28, "No space left on device")

        async def run():
            log = AccessLog("text", Full())
            log._lines.append("x")
            log.flush()
            assert log._lines == []

        asyncio.run(run())
