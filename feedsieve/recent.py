"""Answers that are good for a moment: what many ask for at once is made once."""

import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Keeps answers for some time, not more than a number of them. For one event loop."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._answers: dict[Hashable, tuple[float, Answer]] = {}  # by question, oldest first

    def find(self, question: Hashable) -> Answer | None:
        """Return the answer, or None if there is none that is young enough."""
        if question not in self._answers:
            return None
        made, answer = self._answers[question]
        return answer if time.monotonic() - made < self._seconds else None

    def keep(self, question: Hashable, answer: Answer) -> None:
        """Keep an answer, and forget the oldest if there are too many."""
        self._answers.pop(question, None)
        self._answers[question] = time.monotonic(), answer
        if len(self._answers) > self._most:
            del self._answers[next(iter(self._answers))]
