"""Requests as HTTP clients send them: offers to upgrade, compression, other encodings."""

import codecs
import gzip
import json
import socket
import time
import zlib
from contextlib import contextmanager

import pytest
from serving import serve, wait_until_ready
from test_bad_input import assert_problem

from feedsieve.api.content_encoding import Decompressor, InvalidCompression

TEXTS = ["Отдам котёнка в добрые руки", "Привет"]
BODY = json.dumps({"texts": TEXTS}, ensure_ascii=False).encode()
H2C = (  # as Java's HttpClient sends it; curl has other settings
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
)
HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
GET = b"GET /messages/7 HTTP/1.1\r\nHost: localhost\r\n"


class Connection:
    """One connection, on which requests are sent as bytes and answers are read in turn."""

    def __init__(self, plain: socket.socket) -> None:
        self.socket = plain
        self.file = plain.makefile("rb")

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.socket.sendall(packet)
            time.sleep(0.03)  # or they would arrive as one

    def read(self) -> tuple[int, bytes]:
        """Return status and body of the next answer."""
        status, size = int(self.file.readline().split()[1]), 0
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.lower().partition(b": ")
            size = int(value) if name == b"content-length" else size
        return status, self.file.read(size)

    def is_closed(self) -> bool:
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:  # what we sent was not read
            return True


@contextmanager
def connect(server):
    address = ("127.0.0.1", server.client.base_url.port)
    with socket.create_connection(address, timeout=10) as plain:
        connection = Connection(plain)
        with connection.file:
            yield connection


@pytest.fixture(scope="module")
def scores(small_server):
    """The answer to `BODY`."""
    answer = small_server.client.post("/score", json={"texts": TEXTS})
    assert answer.status_code == 200, answer.text
    return answer.json()


UPGRADES = {
    "at once": [HEAD + H2C + LENGTH + b"\r\n" + BODY],
    "body in later packets": [HEAD + H2C + LENGTH + b"\r\n", BODY[:20], BODY[20:]],
    "headers in two packets": [HEAD + H2C[:50], H2C[50:] + LENGTH + b"\r\n" + BODY],
    "byte by byte": [
        HEAD + H2C[:-30],
        *(b"%c" % byte for byte in H2C[-30:]),
        LENGTH + b"\r\n" + BODY,
    ],
    "chunked": [HEAD + H2C + CHUNKED + b"\r\n" + CHUNKS],
    "chunks in later packets": [HEAD + H2C + CHUNKED + b"\r\n", CHUNKS[:7], CHUNKS[7:]],
    "two Connection headers": [
        HEAD + b"Connection: Upgrade\r\nConnection: HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n" + LENGTH + b"\r\n" + BODY
    ],
    "other case": [
        HEAD + b"connection: keep-alive, UPGRADE\r\nUPGRADE: H2C\r\n" + LENGTH + b"\r\n" + BODY
    ],
    "TLS or h2c": [
        HEAD + b"Connection: upgrade\r\nUpgrade: TLS/1.2, h2c\r\n" + LENGTH + b"\r\n" + BODY
    ],
    "WebSocket": [
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + LENGTH + b"\r\n" + BODY
    ],
    "no Connection header": [HEAD + b"Upgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY],
}


class TestUpgrade:
    """An offer to upgrade is ignored, and the request answered (RFC 9110, 7.8)."""

    @pytest.mark.parametrize("packets", UPGRADES.values(), ids=UPGRADES)
    def test_offer_is_ignored_and_the_connection_goes_on(self, small_server, scores, packets):
        with connect(small_server) as connection:
            for _ in range(2):  # as a pool of connections does
                connection.send(*packets)
                status, body = connection.read()
                assert (status, json.loads(body)) == (200, scores)
            connection.send(GET + b"\r\n")
            status, body = connection.read()
            assert (status, json.loads(body)["id"]) == (200, "7")

    def test_requests_sent_ahead_are_answered_in_turn(self, small_server, scores):
        offer = HEAD + H2C + LENGTH + b"\r\n" + BODY
        with connect(small_server) as connection:
            connection.send(offer + GET + H2C + b"\r\n" + offer + GET + b"\r\n")
            answers = [connection.read() for _ in range(4)]
        assert [status for status, _ in answers] == [200] * 4
        assert [json.loads(body) for _, body in answers[::2]] == [scores] * 2
        assert [json.loads(body)["id"] for _, body in answers[1::2]] == ["7"] * 2

    def test_a_packet_of_many_offers_is_answered(self, small_server):
        with connect(small_server) as connection:
            request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + H2C + b"\r\n"
            connection.send(request * 1500)  # more than Python may recurse
            assert [connection.read()[0] for _ in range(1500)] == [200] * 1500

    @pytest.mark.parametrize(
        "head",
        [HEAD.replace(b"1.1", b"1.0"), HEAD + b"Connection: close\r\n"],
        ids=["1.0", "close"],
    )
    def test_body_is_read_before_the_connection_is_closed(self, small_server, scores, head):
        with connect(small_server) as connection:
            connection.send(head + H2C + LENGTH + b"\r\n", BODY)
            status, body = connection.read()
            assert (status, json.loads(body)) == (200, scores)
            assert connection.is_closed()

    def test_client_that_waits_for_100_may_send_its_body(self, small_server, scores):
        with connect(small_server) as connection:
            connection.send(HEAD + H2C + LENGTH + b"Expect: 100-continue\r\n\r\n")
            assert connection.read() == (100, b"")
            connection.send(BODY)
            status, body = connection.read()
            assert (status, json.loads(body)) == (200, scores)

    @pytest.mark.parametrize(
        "packets",
        [
            [HEAD + H2C + CHUNKED + b"\r\n", b"no chunk\r\n"],
            [HEAD + H2C + CHUNKED + LENGTH + b"\r\n" + CHUNKS],
            [b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n" + H2C + b"\r\n"],
            [b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        ],
        ids=["bad chunk", "two lengths", "tunnel with offer", "tunnel"],
    )
    def test_invalid_request_is_refused(self, small_server, packets):
        with connect(small_server) as connection:
            connection.send(*packets)
            assert connection.read()[0] == 400
            assert connection.is_closed()
        assert "Traceback" not in small_server.log.read_text()

    def test_bodies_that_break_off_do_not_delay_the_end(self, small_environment, tmp_path):
        with serve(small_environment, tmp_path) as server:
            wait_until_ready(server)
            for rest in (b"no chunk\r\n", b"5\r\n{"):
                for offer in (b"", H2C):
                    with connect(server) as connection:
                        connection.send(HEAD + offer + CHUNKED + b"\r\n" + rest)
            server.process.terminate()
            assert server.process.wait(15) == 0

    def test_limits_hold(self, small_server):
        large = b"Content-Length: 31000000\r\n\r\n"
        with connect(small_server) as connection:
            connection.send(HEAD + H2C + large)
            assert connection.read()[0] == 413


def deflate(body: bytes, wbits: int = -zlib.MAX_WBITS) -> bytes:
    compressor = zlib.compressobj(9, wbits=wbits)
    return compressor.compress(body) + compressor.flush()


def zipped(data: bytes, level: int = 9) -> bytes:
    """Compress without the time, so that all test processes have the same cases."""
    return gzip.compress(data, level, mtime=0)


EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # of deflate: five bytes that decompress to none
WHOLE = zipped(BODY)
MEGABYTE = 1 << 20


def post(server, body, coding=None, media_type="application/json"):
    headers = {"Content-Type": media_type} | ({"Content-Encoding": coding} if coding else {})
    return server.client.post("/score", content=body, headers=headers)


class TestContentEncoding:
    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", WHOLE),
            ("GZip", WHOLE),
            ("x-gzip", WHOLE),
            ("gzip", zipped(BODY, 0)),
            ("gzip", zipped(BODY[:9]) + zipped(b"") + zipped(BODY[9:])),
            ("deflate", zlib.compress(BODY)),
            ("deflate", deflate(BODY)),
            ("identity", BODY),
            ("gzip", zipped(codecs.BOM_UTF8 + BODY)),
        ],
    )
    def test_compressed_body_is_read(self, small_server, scores, coding, body):
        for content in (body, (body[at : at + 1] for at in range(len(body)))):  # or chunked
            answer = post(small_server, content, coding)
            assert answer.status_code == 200, answer.text
            assert answer.json() == scores

    @pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "nonsense", "*"])
    def test_other_coding_is_415_and_names_the_accepted(self, small_server, coding):
        answer = post(small_server, BODY, coding)
        assert_problem(answer, 415, "gzip or deflate")
        assert answer.headers["accept-encoding"] == "gzip, deflate"

    @pytest.mark.parametrize(
        ("coding", "body", "reason"),
        [
            ("gzip", BODY, "not valid gzip"),
            ("gzip", b"", "ends too early"),
            ("gzip", WHOLE[:1], "ends too early"),
            ("gzip", WHOLE[:30], "ends too early"),
            ("gzip", WHOLE[:-1], "ends too early"),
            ("gzip", WHOLE[:-8] + b"\0" * 8, "not valid gzip"),  # the check sum
            ("gzip", WHOLE + WHOLE[:9], "ends too early"),
            ("gzip", WHOLE + b"more", "not valid gzip"),
            ("gzip", zlib.compress(BODY), "not valid gzip"),
            ("gzip", zipped(b"") * 1001, "data after its end"),
            ("deflate", WHOLE, "not valid deflate"),
            ("deflate", zlib.compress(BODY)[:-1], "ends too early"),
            ("deflate", zlib.compress(BODY) * 2, "data after its end"),
            ("gzip", zipped(b"{"), "Invalid JSON"),
            ("gzip", zipped(BODY.decode().encode("utf-16")), "UTF-16"),
        ],
    )
    def test_invalid_compressed_body_is_400(self, small_server, coding, body, reason):
        assert_problem(post(small_server, body, coding), 400, reason)

    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", zipped(b" " * 200_000_000)),
            ("gzip", zipped(b" " * 1_000_000) * 40),
            ("deflate", zlib.compress(b" " * 31_000_000)),
            ("deflate", deflate(b" " * 31_000_000)),
            ("gzip", zipped(BODY)[:10] + EMPTY_BLOCK * 6_200_000),
        ],
        ids=["bomb", "members", "zlib", "deflate", "empty blocks"],
    )
    def test_body_above_the_limit_decompressed_is_413(self, small_server, coding, body):
        parts = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
        assert_problem(post(small_server, parts, coding), 413, "6,500,000 bytes, decompressed")

    @pytest.mark.parametrize("size", [0, 1, MEGABYTE - 1, MEGABYTE, MEGABYTE + 5, 3 * MEGABYTE])
    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    def test_pieces_are_bounded_and_complete(self, coding, size):
        """Five bytes above a megabyte, zlib has read all input before its last output."""
        body = bytes(size)
        compressed = zipped(body) if coding == "gzip" else deflate(body)
        for step in (1, len(compressed)):
            decompressor = Decompressor(coding)
            parts = [compressed[at : at + step] for at in range(0, len(compressed), step)]
            pieces = [piece for part in parts for piece in decompressor.pieces(part)]
            decompressor.end()
            assert b"".join(pieces) == body
            assert max(map(len, pieces)) <= MEGABYTE

    def test_end_before_anything_came_is_invalid(self):
        with pytest.raises(InvalidCompression, match="ends too early"):
            Decompressor("gzip").end()


class TestTextEncoding:
    @pytest.mark.parametrize(
        ("encoding", "reason"),
        [
            ("utf-16", "the body is UTF-16"),
            ("utf-16-le", "the body is UTF-16"),
            ("utf-16-be", "the body is UTF-16"),
            ("utf-32", "the body is UTF-32"),
            ("utf-32-be", "the body is UTF-32"),
            ("cp1251", "byte 13 of the body is not UTF-8"),
            ("koi8-r", "byte 13 of the body is not UTF-8"),
        ],
    )
    def test_other_encoding_is_400_with_the_way_out(self, small_server, encoding, reason):
        body = BODY.decode().encode(encoding)
        for media_type in ("application/json", f"application/json; charset={encoding}"):
            answer = post(small_server, body, media_type=media_type)
            assert_problem(answer, 400, reason, "encode the body as UTF-8")

    @pytest.mark.parametrize(
        "body",
        [
            b'{"texts": ["\xcf\xf0\xe8"]}',
            b'{"texts": ["ok"], "other": "\xcf"}',
            b'{"texts": ["ok"], "\xcf": 1}',
            b'{"texts": ["\xed\xa0\x80"]}',  # half of an emoji, as such
        ],
    )
    def test_bytes_that_are_not_utf_8_are_400_anywhere(self, small_server, body):
        assert_problem(post(small_server, body), 400, "not UTF-8")

    def test_byte_order_mark_of_utf_8_is_accepted(self, small_server, scores):
        answer = post(small_server, codecs.BOM_UTF8 + BODY)
        assert (answer.status_code, answer.json()) == (200, scores)
        assert_problem(post(small_server, codecs.BOM_UTF8 * 2 + BODY), 400, "Invalid JSON")
