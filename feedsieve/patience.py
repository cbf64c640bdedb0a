"""How much may wait to be read: as much as is read before clients stop waiting."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bentoml.exceptions import ServiceUnavailable

READ = 1000  # characters of a text; the encoder cuts what comes after some 256 tokens
EACH = 100  # characters that take as long as what every text takes, however short
SPEED_AT_FIRST = 40_000.0  # characters a second, until some were read
MEMORY = 0.9  # of what went before, each time that some are read


class TooMuch(ServiceUnavailable):
    """More waits to be read than can be while a client waits."""


class Patience:
    """Counts what waits, and how fast what came before was read.

    To be used from one event loop, but for `learn`.
    """

    def __init__(self, longest: float) -> None:
        """What is let in should be read within `longest` seconds."""
        self._longest = longest
        self._waiting = 0  # characters
        self._characters = SPEED_AT_FIRST
        self._seconds = 1.0

    @contextmanager
    def place(self, texts: Iterable[str]) -> Iterator[None]:
        """Keep a place for `texts` until they are read; where nothing waits there is always one.

        Raises TooMuch.
        """
        size = _size(texts)
        speed = self._characters / self._seconds
        if self._waiting and self._waiting + size > self._longest * speed:
            raise TooMuch("too much waits to be scored")
        self._waiting += size
        try:
            yield
        finally:
            self._waiting -= size

    def learn(self, texts: Iterable[str], seconds: float) -> None:
        """Take into account that reading `texts` took `seconds`, with what was read beside them."""
        size = _size(texts)
        self._characters = MEMORY * self._characters + size
        self._seconds = MEMORY * self._seconds + seconds


def _size(texts: Iterable[str]) -> int:
    """Return how much there is to read, in characters."""
    return sum(EACH + min(len(text), READ) for text in texts)
