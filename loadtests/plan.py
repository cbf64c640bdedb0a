"""What a run of the benchmark measures with, the same for every section."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Failed(RuntimeError):
    """A program that the benchmark started failed; says which, and its last words."""


@dataclass(frozen=True)
class Plan:
    """Texts, the model, how long to measure, and a folder that is gone afterwards."""

    texts: Sequence[str]  # as different as can be
    chat: Sequence[str]  # in the order of the chat, with what it repeats
    model: str  # tag of the classifier
    served: str  # what is known of its encoder, in words
    models: Sequence[str]  # tags of those that are compared by their layers
    quick: bool
    folder: Path
    _runs: count = field(default_factory=lambda: count(1), repr=False)

    def few_or_many(self, few: T, many: T) -> T:
        """Return the first for a quick run, and the second for one whose figures count."""
        return few if self.quick else many

    def next_run(self) -> int:
        """Return a number that no other run of texts has had, see `messages.different`."""
        return next(self._runs)
