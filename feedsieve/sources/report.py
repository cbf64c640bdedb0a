"""What a reader of a file says beside the messages: how it was read, and what was skipped."""

from collections import Counter


class ReadReport:
    """Notes on how a file is read, and counts of skipped entries by reason.

    Both grow while the file is read. A note is one line without the file's name, such as
    `encoding: cp1251`; a reason is a plural noun, such as `service messages`.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.skipped: Counter[str] = Counter()

    def note(self, note: str) -> None:
        """Add a note, once."""
        if note not in self.notes:
            self.notes.append(note)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count skipped entries."""
        self.skipped[reason] += count
