"""CSV files as people have them: encoding and delimiter are detected, stray quotes are mended."""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from feedsieve.message import InvalidFile
from feedsieve.sources.columns import KNOWN, compact
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_quotes import Lines, is_csv, line_of_open_quote, mend, parser
from feedsieve.sources.tables.encodings import Encoding, detect

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_SAMPLE_CHARACTERS = 2**18
_SAMPLE_ROWS = 100
_SEP_LINE = re.compile('"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', re.IGNORECASE)  # Excel's own


@dataclass(frozen=True, slots=True)
class Dialect:
    """Encoding, delimiter and quoting of a CSV file."""

    encoding: Encoding
    delimiter: str
    sep_line: str  # Excel's first line `sep=;` with its end; empty if there is none
    line_end: str
    has_backslashes: bool  # that escape quotes

    def notes(self, columns: int) -> Iterator[str]:
        """Yield what is unusual, for users."""
        if self.encoding.note:
            yield self.encoding.note
        if self.delimiter != "," and columns > 1:
            yield f"delimiter: {name_of(self.delimiter)}"
        if self.has_backslashes:
            yield "quotes: escaped by backslashes"


class CsvFile:
    """A CSV file with a header, read in bounded memory.

    Raises InvalidFile if the file is missing or its encoding is unknown, and while it is read if
    it is not CSV. `known` are names of columns by which the delimiter is detected, beside those in
    `columns.KNOWN`.
    """

    def __init__(self, path: Path, report: ReadReport, known: Collection[str] = ()) -> None:
        self.path = path
        self._report = report
        self.dialect = _detect_dialect(path, KNOWN | {compact(name) for name in known})
        self.header_line, self.header = next(self._read(ReadReport()), (0, []))
        for note in self.dialect.notes(len(self.header)):
            report.note(note)

    @property
    def named_width(self) -> int:
        """Number of columns without unnamed ones at the end, as Excel adds them."""
        width = len(self.header)
        while width and not self.header[width - 1]:
            width -= 1
        return width

    def records(self, report: ReadReport | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and fields of each row after the header.

        A blank line has no fields, and a row that does not fit the header another number of them.
        Raises InvalidFile.
        """
        records = self._read(self._report if report is None else report)
        next(records, None)
        return records

    def rows(self, report: ReadReport | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and fields of each row; rows without a value are skipped and counted.

        Raises InvalidFile, also for a row that does not fit the header.
        """
        report = self._report if report is None else report
        header = self.header
        width, last = len(header), header[-1] if header else ""
        for line, row in self.records(report):
            if len(row) != width:
                if row:
                    raise self.misfit(line, row)
            elif not any(row):
                report.skip("empty rows")
            elif row[-1] == last and _names(row) == header:  # files that were joined
                report.skip("repeated header lines")
            else:
                yield line, row

    def misfit(self, line: int, row: list[str]) -> InvalidFile:
        """Return the error for a row that does not fit the header."""
        return InvalidFile(
            f"{self.path}, line {line}: expected {len(self.header)} fields, as in the header, not"
            f" {len(row)}; put texts with a {name_of(self.dialect.delimiter)} or a line end into"
            " quotes"
        )

    def _read(self, report: ReadReport) -> Iterator[tuple[int, list[str]]]:
        """Yield the header, then all that follows."""
        encoding = self.dialect.encoding
        try:
            with encoding.open(self.path) as file:
                line = 1
                if self.dialect.sep_line:
                    file.readline()
                    line = 2
                yield from self._parse(Lines(file), line, report)
        except UnicodeError as error:
            raise InvalidFile(f"{self.path}: expected {encoding.codec} text; {error}") from error
        except OSError as error:
            raise InvalidFile(f"{self.path}: {error.strerror or error}") from error

    def _parse(
        self, lines: Lines, start: int, report: ReadReport
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number, from `start` on, and the fields of each row."""
        delimiter, has_backslashes = self.dialect.delimiter, self.dialect.has_backslashes
        records = parser(lines, delimiter, has_backslashes=has_backslashes)
        width = named_width = mended = 0
        taken = lines.taken
        while True:
            start += len(taken)
            taken.clear()
            try:
                row = next(records, None)
                other = None
            except csv.Error as error:
                row = other = mend(lines, width, delimiter)
                if row is None:
                    raise self._not_csv(lines, start, error) from error
            if row is None:
                break
            if not width:  # before the header
                row = _names(row)
                if not any(row):
                    continue
                width = len(row)
                named_width = width - next(n for n, name in enumerate(row[::-1]) if name)
            elif len(row) != width:
                if len(row) > width and not any(row[width:]):
                    del row[width:]
                elif named_width <= len(row) < width:
                    row += [""] * (width - len(row))
                elif row and not is_csv("".join(taken), delimiter):
                    other = mend(lines, width, delimiter)
                    records = parser(lines, delimiter, has_backslashes=has_backslashes)
            if other:
                row = other
                mended += 1
                records = parser(lines, delimiter, has_backslashes=has_backslashes)
            yield start, row
        if mended:
            report.note(f"quotes that are not CSV in {mended:,} row(s), read as they stand")

    def _not_csv(self, lines: Lines, start: int, error: csv.Error) -> InvalidFile:
        reason = str(error)
        if "end of data" in reason or "expected after" in reason:
            start += line_of_open_quote(lines.taken, self.dialect.delimiter)
            reason = "the quote that opens here is not closed; write quotes in a text twice"
        return InvalidFile(f"{self.path}, line {start}: expected CSV; {reason}")


def _names(row: list[str]) -> list[str]:
    return [name.strip(" \t\n\r\ufeff\x00") for name in row]


def name_of(delimiter: str) -> str:
    """Return the name of a delimiter."""
    return DELIMITERS.get(delimiter, repr(delimiter))


def _detect_dialect(path: Path, known: AbstractSet[str]) -> Dialect:
    encoding = detect(path)
    try:
        with encoding.open(path) as file:
            text = file.read(_SAMPLE_CHARACTERS)
            is_all = not file.read(1)
    except UnicodeError as error:
        raise InvalidFile(f"{path}: expected {encoding.codec} text; {error}") from error
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error
    sep_line = _SEP_LINE.match(text)
    text = text[sep_line.end() :] if sep_line else text
    lines = list(io.StringIO(text, newline=""))
    lines = lines if is_all or len(lines) < 2 else lines[:-1]  # the last one is cut
    delimiter = sep_line[1] if sep_line else max(DELIMITERS, key=_fits(lines, known))
    ends = [end for end in ("\r\n", "\n", "\r") if lines and lines[0].endswith(end)]
    return Dialect(
        encoding=encoding,
        delimiter=delimiter,
        sep_line=sep_line[0] if sep_line else "",
        line_end=ends[0] if ends else "\n",
        has_backslashes='\\"' in text
        and _even_rows(lines, delimiter, True) > _even_rows(lines, delimiter, False),
    )


def _fits(lines: list[str], known: AbstractSet[str]) -> Callable[[str], tuple[int, float, bool]]:
    """Return how well a delimiter fits: known names, rows as wide as the header, columns."""

    def fit(delimiter: str) -> tuple[int, float, bool]:
        csv.field_size_limit(_SAMPLE_CHARACTERS)
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(row)][:_SAMPLE_ROWS]
        if not rows:
            return 0, 0, False
        header, *others = rows
        names = {compact(name) for name in header}
        even = sum(len(row) == len(header) for row in others)
        return len(names & known), even / max(len(others), 1), len(header) > 1

    return fit


def _even_rows(lines: list[str], delimiter: str, has_backslashes: bool) -> int:
    """Return how many rows in a sample are as wide as the header, until one is not CSV."""
    count = width = 0
    try:
        for row in parser(lines, delimiter, has_backslashes=has_backslashes):
            width = width or len(row)
            count += len(row) == width
    except csv.Error:
        pass
    return count
