"""Decompression of request bodies (Content-Encoding, RFC 9110, 8.4) in bounded pieces."""

import zlib
from collections.abc import Iterator

ACCEPTED = "gzip, deflate"  # for Accept-Encoding

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 20  # bytes; takes some milliseconds
_MAX_MEMBERS = 1000  # bgzip, which makes the most, makes 480 of the largest body


class InvalidCompression(ValueError):
    """A body that its coding cannot decompress. The message says why, and the way out."""


class Decompressor:
    """Decompresses one body, part by part."""

    def __init__(self, coding: str) -> None:
        """`coding` is gzip or deflate."""
        self.coding = coding
        self._members = 0
        self._member: zlib._Decompress | None = None

    def pieces(self, part: bytes) -> Iterator[bytes]:
        """Yield what `part` decompresses to, at most a megabyte at a time.

        Raises InvalidCompression.
        """
        while part:
            member = self._open(part)
            piece = b""
            try:
                while not member.eof and (part or len(piece) == _PIECE):
                    piece = member.decompress(part, _PIECE)
                    part = member.unconsumed_tail
                    yield piece
            except zlib.error:
                raise InvalidCompression(
                    f"the body is not valid {self.coding}: compress it anew, or send it as it is,"
                    " without Content-Encoding"
                ) from None
            part = member.unused_data if member.eof else b""

    def end(self) -> None:
        """Raise InvalidCompression if the body is incomplete."""
        if self._member is None or not self._member.eof:
            raise InvalidCompression(f"the {self.coding} body ends too early: send all of it")

    def _open(self, part: bytes) -> "zlib._Decompress":
        """Return the decompressor of what begins with `part`: gzip may have several members."""
        if self._member is not None and not self._member.eof:
            return self._member
        self._members += 1
        if self._members > (_MAX_MEMBERS if self.coding == "gzip" else 1):
            raise InvalidCompression(
                f"the {self.coding} body has data after its end: send one body a request"
            )
        if self.coding == "gzip":
            self._member = zlib.decompressobj(_GZIP)
        else:  # in zlib's format, or as some clients do, without its header
            has_header = part[0] & 0x0F == zlib.DEFLATED
            self._member = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return self._member
