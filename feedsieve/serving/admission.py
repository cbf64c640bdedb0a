"""Admission control: reject work that would take too long or too much memory.

feedsieve/api/load_shedding.py answers 503 for it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from feedsieve.errors import FeedsieveError

CHARACTERS_READ = 1000  # of a text; the encoder truncates it at about 256 tokens
CHARACTERS_EACH = 100  # the fixed cost of a text, in characters
FIRST_SPEED = 40_000.0  # characters a second, before anything was measured
DECAY = 0.9  # of earlier measurements, at each new one
RETRY_SOON, RETRY_LATER = 1, 5  # seconds


class Overloaded(FeedsieveError):
    """The service has all the work that it can do in time."""

    def __init__(self, reason: str, retry_after: int) -> None:
        """`retry_after` is in seconds."""
        super().__init__(reason)
        self.retry_after = retry_after


class AdmissionControl:
    """Bounds the requests in progress: their number, their bytes, and the time to score them.

    To be used from one event loop, except for `measured`.
    """

    def __init__(self, requests: int, size: int, seconds: float) -> None:
        """Admit at most `requests` of together `size` bytes, and texts scored within `seconds`.

        Number and bytes bound memory. A request of more than a quarter of `size` counts as a
        quarter, so that a large one neither starves nor keeps all others out.
        """
        self._requests = requests
        self._size = size
        self._seconds = seconds
        self._requests_in_progress = 0
        self._bytes_in_progress = 0
        self._characters_waiting = 0
        self._measured_characters = FIRST_SPEED
        self._measured_seconds = 1.0

    @contextmanager
    def request(self, size: int = 0) -> Iterator[None]:
        """Admit a request of `size` bytes until the block ends. Raises Overloaded."""
        size = min(size, self._size // 4)
        if (
            self._requests_in_progress == self._requests
            or self._bytes_in_progress + size > self._size
        ):
            raise Overloaded("too many requests wait to be scored", RETRY_SOON)
        self._requests_in_progress += 1
        self._bytes_in_progress += size
        try:
            yield
        finally:
            self._requests_in_progress -= 1
            self._bytes_in_progress -= size

    @contextmanager
    def scoring(self, texts: Iterable[str]) -> Iterator[None]:
        """Admit `texts` to the queue until the block ends; always if the queue is empty.

        Raises Overloaded if scoring what waits before them would take longer than allowed.
        """
        characters = _characters(texts)
        speed = self._measured_characters / self._measured_seconds
        waiting = self._characters_waiting
        if waiting and waiting + characters > self._seconds * speed:
            raise Overloaded("too many texts wait to be scored", RETRY_LATER)
        self._characters_waiting += characters
        try:
            yield
        finally:
            self._characters_waiting -= characters

    def measured(self, texts: Iterable[str], seconds: float) -> None:
        """Update the estimate of speed: scoring `texts` took `seconds`, under the load of then."""
        self._measured_characters = DECAY * self._measured_characters + _characters(texts)
        self._measured_seconds = DECAY * self._measured_seconds + seconds


def _characters(texts: Iterable[str]) -> int:
    """Return the cost of scoring `texts`, in characters."""
    return sum(CHARACTERS_EACH + min(len(text), CHARACTERS_READ) for text in texts)
