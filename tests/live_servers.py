"""Servers on loopback that live sources are followed on: a Bot API server, and one with feeds."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "123456789:AAE-secret-of-this-test_0123456789abc"
GROUP = {"id": -1001234567890, "type": "supergroup", "title": "Соседи"}
CHANNEL = {"id": -1009876543210, "type": "channel", "title": "Новости", "username": "novosti_test"}


class BotApi(ThreadingHTTPServer):
    """The Bot API as Telegram documents it: getMe, and getUpdates with offsets and long polls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _BotApiHandler)
        self.changed = threading.Condition()
        self.updates: list[dict[str, Any]] = []  # not confirmed
        self.next_id = 500
        self.asked: list[int | None] = []  # the offsets of getUpdates
        self.failures: list[tuple[int, dict[str, Any]]] = []  # answered first, each once
        self.token = TOKEN
        self.polls = 0  # the last of several polls at once is the one that goes on
        self.most = 100  # updates in an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, kind: str = "message", **message: Any) -> None:
        """Let an update arrive."""
        message = {"date": 1_700_000_000, "chat": GROUP} | message
        with self.changed:
            self.updates.append({"update_id": self.next_id, kind: message})
            self.next_id += 1
            self.changed.notify_all()

    def fail(self, status: int, description: str, **parameters: Any) -> None:
        """Answer one of the next calls of getUpdates with an error."""
        answer = {"ok": False, "error_code": status, "description": description}
        self.failures.append((status, answer | ({"parameters": parameters} if parameters else {})))

    def get_updates(self, offset: int | None, limit: int, timeout: float) -> tuple[int, Any]:
        """Confirm what is before `offset`, and return what follows, once there is something."""
        with self.changed:
            self.asked.append(offset)
            self.polls += 1
            poll = self.polls
            self.changed.notify_all()
            if offset is not None:
                self.updates = [one for one in self.updates if one["update_id"] >= offset]
            self.changed.wait_for(
                lambda: self.updates or self.failures or self.polls != poll, timeout
            )
            if self.failures:
                return self.failures.pop(0)
            if self.polls != poll:
                return 409, {"ok": False, "description": "Conflict: terminated by other request"}
            return 200, {"ok": True, "result": self.updates[: min(limit, self.most)]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _BotApiHandler(_Handler):
    server: BotApi
    ME: ClassVar = {"id": 123456789, "is_bot": True, "first_name": "Bot", "username": "a_bot"}

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fields = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
        token, _, method = self.path.removeprefix("/bot").partition("/")
        status, answer = 404, {"ok": False, "error_code": 404, "description": "Not Found"}
        if token != self.server.token:
            status, answer = 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
        elif method == "getMe":
            status, answer = 200, {"ok": True, "result": self.ME}
        elif method == "getUpdates":
            offset = int(fields["offset"]) if "offset" in fields else None
            wait = float(fields.get("timeout", 0))
            status, answer = self.server.get_updates(offset, int(fields["limit"]), wait)
        kind = {"Content-Type": "application/json"}
        with suppress(OSError):  # the client was killed
            self.answer(status, json.dumps(answer).encode(), kind)


@dataclass
class Page:
    """An answer of the server with feeds."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds before the body


class FeedServer(ThreadingHTTPServer):
    """Answers with `pages`, by path, and with 304 if the client has the page."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FeedHandler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _FeedHandler(_Handler):
    server: FeedServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((path, headers))
        page = self.server.pages.get(path, Page(status=404))
        etag = page.headers.get("ETag")
        modified = page.headers.get("Last-Modified")
        if (etag and headers.get("if-none-match") == etag) or (
            modified and headers.get("if-modified-since") == modified
        ):
            self.answer(304, b"", {})
            return
        time.sleep(page.wait)
        with suppress(OSError):  # the client has read enough
            self.answer(page.status, page.body, page.headers)


@contextmanager
def run_server(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def bot_api() -> Iterator[BotApi]:
    server = BotApi()
    with run_server(server):
        yield server


@pytest.fixture
def feeds() -> Iterator[FeedServer]:
    server = FeedServer()
    with run_server(server):
        yield server
