"""CSV that is read back as it was written, whatever the texts in it."""

import csv
from typing import Any, TextIO


def csv_writer(file: TextIO, *, delimiter: str = ",", line_end: str = "\n") -> Any:
    r"""Return a `csv.writer` that quotes every field with a line feed or a carriage return.

    Python 3.11's quotes only the characters that end its own lines, so that a bare `\r` in a text
    would start a new row. Open the file with `newline=""`.
    """
    return csv.writer(_Lines(file, line_end), delimiter=delimiter, lineterminator="\r\n")


class _Lines:
    """A text file whose lines end as the reader expects; the writer ends its own with both."""

    def __init__(self, file: TextIO, end: str) -> None:
        self._file, self._end = file, end

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + self._end)
