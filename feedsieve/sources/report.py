"""The report of a file's reader: notes on how it was read, and counts of skipped entries."""

from collections import Counter


class ReadReport:
    """Notes on how a file is read, and counts of skipped entries by reason.

    Both grow while the file is read. A note is one line without the file's name, such as
    `encoding: cp1251`; a reason is a plural noun, such as `service messages`.
    """

    def __init__(self) -> None:
        self.format = ""  # as what the file was recognised
        self.notes: list[str] = []
        self.skipped: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()  # faults, as plural nouns
        self.unknown_times = 0
        self._unknown_time = ""  # the first one

    def note(self, note: str) -> None:
        """Add a note, once."""
        if note not in self.notes:
            self.notes.append(note)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count skipped entries."""
        self.skipped[reason] += count

    def mend(self, fault: str, count: int = 1) -> None:
        """Count faults of the file that were mended."""
        self.mended[fault] += count

    def miss_time(self, value: object) -> None:
        """Count a time that could not be read; its message has none."""
        self.unknown_times += 1
        self._unknown_time = self._unknown_time or repr(value)[:40]

    def lines(self) -> list[str]:
        """Return the notes, and one each for mended faults and unknown times."""
        lines = list(self.notes)
        if self.mended:
            lines.append(f"mended: {counted(self.mended)}")
        if self.unknown_times:
            lines.append(
                f"messages whose time is unknown: {self.unknown_times:,},"
                f" the first has {self._unknown_time}"
            )
        return lines


def counted(counts: Counter[str]) -> str:
    """Return counts in one line, such as `service messages (2), without text (1)`."""
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
