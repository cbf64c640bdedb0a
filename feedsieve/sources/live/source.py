"""Live sources: the batches that they yield, and the errors that they raise."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from feedsieve.errors import FeedsieveError
from feedsieve.message import Message
from feedsieve.sources.report import ReadReport


class InvalidSource(FeedsieveError):
    """A live source that cannot be followed as it is written. The message has the reason."""


class SourceUnavailable(FeedsieveError):
    """A live source that does not answer, or answers with an error; it is tried again.

    `retry_after` is the number of seconds that the source asks to wait, 0 if it does not.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceEnded(FeedsieveError):
    """A live source that trying again cannot mend, such as a bot with a wrong token."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of a live source, and the position to save once they are stored.

    A batch without messages says that the source works. `origin` is a title or a file name, for the
    log. Reading the messages of a file may raise InvalidFile, also late.
    """

    messages: Iterable[Message] = ()
    position: str | None = None  # None: as before
    origin: str = ""
    report: ReadReport = field(default_factory=ReadReport)
    is_file: bool = False


class LiveSource(Protocol):
    """A source that messages keep arriving from."""

    @property
    def label(self) -> str:
        """The source for people, without secrets."""

    @property
    def key(self) -> str:
        """The key of its position in the store."""

    def batches(self, position: str | None, *, once: bool) -> AsyncGenerator[Batch, None]:
        """Yield batches that follow `position`, endlessly or `once`.

        The next batch is asked for after the last one was stored and its position saved; with that
        the source may forget it. Raises SourceUnavailable and SourceEnded.
        """
