"""Admission control: reject work that would take too long or too much memory.

feedsieve/api/request_body.py answers 503 for it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

from feedsieve.errors import FeedsieveError
from feedsieve.metrics import Overload

Work = Literal["scored", "stored"]  # to be done with the texts of a request

CHARACTERS_READ = 1000  # of a text; the encoder truncates it at about 256 tokens
CHARACTERS_EACH = 100  # the fixed cost of a text, in characters
MAX_PIECE = 2_200  # characters of a large request that are scored together; two long texts
FIRST_SPEED = 40_000.0  # characters a second, before anything was measured
DECAY = 0.9  # of earlier measurements, at each new one
RETRY_SOON, RETRY_LATER = 1, 5  # seconds
SMALL_BODY = 65_536  # bytes; most requests have less
SMALL_SHARE = 0.25  # of the memory for bodies, which larger ones leave to small ones


class Overloaded(FeedsieveError):
    """The service has all the work that it can do in time."""

    def __init__(self, reason: str, retry_after: int, kind: Overload = "requests") -> None:
        """`retry_after` is in seconds, `kind` for the metrics."""
        super().__init__(reason)
        self.retry_after = retry_after
        self.kind: Overload = kind


class AdmissionControl:
    """Bounds the requests in progress: their number, their bytes, and the time to score them.

    To be used from one event loop, except for `measured`.
    """

    def __init__(self, requests: int, size: int, seconds: float) -> None:
        """Admit at most `requests` of each kind of work, and `size` bytes of bodies.

        Number and bytes bound memory. Texts are admitted if they are scored within `seconds`.
        """
        self._requests = requests
        self._size = size
        self._seconds = seconds
        self._in_progress: Counter[Work] = Counter()
        self._bytes_in_progress = 0
        self._waiting = {"small": 0, "large": 0}  # characters, by size of their request
        self._speed = Speed()

    def check(self, work: Work) -> None:
        """Raise Overloaded if `request` would."""
        if self._in_progress[work] >= self._requests:
            kind: Overload = "requests" if work == "scored" else "storing"
            raise Overloaded(f"too many requests wait to be {work}", RETRY_SOON, kind)

    @contextmanager
    def request(self, work: Work) -> Iterator[None]:
        """Admit a request, whose body is there, until the block ends. Raises Overloaded.

        Requests to store may wait a minute for an import; they take no place of requests to score.
        """
        self.check(work)
        self._in_progress[work] += 1
        try:
            yield
        finally:
            self._in_progress[work] -= 1

    @contextmanager
    def body(self) -> Iterator["BodySize"]:
        """Count the bytes of one body until the block ends."""
        body = BodySize(self)
        try:
            yield body
        finally:
            self._bytes_in_progress -= body.bytes

    @contextmanager
    def scoring(self, texts: Iterable[str]) -> Iterator[None]:
        """Admit `texts` to the queue until the block ends; always if nothing waits before them.

        Large requests are scored in pieces between small ones, which wait for each other only.
        Raises Overloaded if scoring what waits before them would take longer than allowed.
        """
        characters = cost(texts)
        size = "small" if characters <= MAX_PIECE else "large"
        before = self._waiting["small"] + (self._waiting["large"] if size == "large" else 0)
        if before and before + characters > self._seconds * self._speed.value:
            raise Overloaded("too many texts wait to be scored", RETRY_LATER, "wait")
        self._waiting[size] += characters
        try:
            yield
        finally:
            self._waiting[size] -= characters

    def measured(self, texts: Iterable[str], seconds: float) -> None:
        """Update the estimate of speed: scoring `texts` took `seconds`, under the load of then."""
        self._speed.measured(cost(texts), seconds)


class BodySize:
    """The bytes of one body that have arrived, decompressed."""

    def __init__(self, admission: AdmissionControl) -> None:
        self._admission = admission
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes. Raises Overloaded if all bodies together have too many.

        Large bodies cannot keep small ones out.
        """
        admission = self._admission
        is_small = self.bytes + size <= SMALL_BODY
        most = admission._size if is_small else admission._size * (1 - SMALL_SHARE)
        if admission._bytes_in_progress + size > most:
            raise Overloaded("too many bytes wait to be scored", RETRY_SOON, "bytes")
        self.bytes += size
        admission._bytes_in_progress += size


class ExplanationQueue:
    """Lets one explanation be computed at a time, and a bounded number wait, without threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._requests = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block. Raises Overloaded."""
        if self._requests >= self._most:
            raise Overloaded("too many explanations are waited for", RETRY_LATER)
        self._requests += 1
        try:
            async with self._turn:
                yield
        finally:
            self._requests -= 1


class Speed:
    """The characters that are scored in a second, measured while serving."""

    def __init__(self) -> None:
        self._characters = FIRST_SPEED
        self._seconds = 1.0

    @property
    def value(self) -> float:
        """Characters a second, as `cost` counts them."""
        return self._characters / self._seconds

    def measured(self, characters: float, seconds: float) -> None:
        """Update the estimate: scoring `characters` took `seconds`."""
        self._characters = DECAY * self._characters + characters
        self._seconds = DECAY * self._seconds + seconds


def cost(texts: Iterable[str]) -> int:
    """Return the cost of scoring `texts`, in characters."""
    return sum(CHARACTERS_EACH + min(len(text), CHARACTERS_READ) for text in texts)
