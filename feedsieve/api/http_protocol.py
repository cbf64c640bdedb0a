"""uvicorn's HTTP/1.1 protocol: bounded heads, a last request when it ends, offers to upgrade.

Java's HttpClient and `curl --http2` send `Upgrade: h2c` with every first request, and its body. A
server may ignore the offer (RFC 9110, 7.8). httptools stops at the end of the headers, and uvicorn
passes on an empty body; the real one is then read as the next request and refused.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD = 32_768  # bytes of request line and headers, as in nginx
MAX_HEADERS = 100
WRITE_SECONDS = 30.0  # that a client may read nothing of its answer
HEAD_SECONDS = 10.0  # for a whole head; a connection without a request is closed as soon
LAST_REQUEST_SECONDS = 1.0  # for a request that is on its way when the server ends


class HttpProtocol(HttpToolsProtocol):
    """Closes connections whose head is too large or too slow; ignores every offer to upgrade.

    WebSockets are not served either. A request with an offer is parsed again without its Upgrade
    header.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_ending = False
        self._is_in_head = False
        self._head_size: int | None = None  # of the parts after the first, which may hold others
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._framing = 0  # bytes after a head that are none of the body: chunks, trailers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in progress."""
        self._cancel_head_timer()
        self._cancel_write_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._unset_keepalive_if_required()  # not before: other bytes must not keep it open
        super().on_message_begin()
        self._is_in_head = True
        self._head_size = None
        self._framing = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; not a trailer, which nobody reads."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._framing -= 9 * len(body)  # as much as chunks of a byte need
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Start to answer a request. Raises _HeadTooLarge, which ends parsing."""
        self._is_in_head = False
        self._cancel_head_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD or len(self.headers) > MAX_HEADERS:
            raise _HeadTooLarge
        super().on_headers_complete()
        if self._is_ending and self.cycle is not None:  # none yet if it offers to upgrade
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Wait for a client that does not read, for a time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        self._cancel_write_timer()
        super().resume_writing()

    def shutdown(self) -> None:
        """Answer the request in progress, or one that arrives within a second; then close."""
        self._is_ending = True
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                LAST_REQUEST_SECONDS, self.timeout_keep_alive_handler
            )
        else:
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if not self._is_in_head:
            self._framing += len(data)
        self._parse(data)
        if self._framing > MAX_HEAD:
            self.transport.close()
        if not self._is_in_head or self.transport.is_closing():
            return
        self._head_size = 0 if self._head_size is None else self._head_size + len(data)
        if self._head_size > MAX_HEAD:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_slow)

    def _parse(self, data: bytes) -> None:
        unread: list[bytes | memoryview] = [data]  # the last is next
        while unread:
            part = unread.pop()
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._should_upgrade():  # CONNECT, which asks for a tunnel
                    self._unsupported_upgrade_warning()
                    return
                [end] = upgrade.args  # of the headers, in `part`
                if end < len(part):
                    unread.append(memoryview(part)[end:])
                unread.append(self._head_without_upgrade())
                # The parser skips what follows a request with `Connection: close`.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _HeadTooLarge):
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
                    return
                message = "Invalid HTTP request received."
                self.logger.warning(message)
                self.send_400_response(message)
                return

    def _close_slow(self) -> None:
        """Close a connection on which no whole head arrived in time."""
        self._head_timer = None
        if self.flow.read_paused:  # by us, until the requests before it are answered
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_slow)
            return
        if self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the headers arrived too slowly")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer with plain text, as uvicorn does with 400, and close."""
        if self.cycle is not None and not self.cycle.response_complete:  # it answers another one
            self.transport.close()
            return
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(message)
        self.transport.write(STATUS_LINE[status] + head + length + message.encode())
        self.transport.close()

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _should_upgrade(self) -> bool:
        """Return whether the request has an Upgrade header: uvicorn then does not start it."""
        return any(name == b"upgrade" for name, _value in self.headers)

    def _head_without_upgrade(self) -> bytes:
        """Return request line and headers; without Upgrade, Connection does not ask for one."""
        method, version = self.scope["method"], self.parser.get_http_version()
        lines = [b"%s %s HTTP/%s" % (method.encode(), self.url, version.encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


class _HeadTooLarge(Exception):
    """A head of too many headers or bytes."""


_TOO_LARGE = f"at most {MAX_HEADERS} headers, of together {MAX_HEAD:,} bytes with the address"


def install() -> None:
    """Let uvicorn use this protocol by default: BentoML passes none, and has no setting for it."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{HttpProtocol.__name__}"
