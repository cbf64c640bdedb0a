"""CSV and Parquet files of messages to score: read in parts, written with the scores.

Each part is written to a file of its own; the files are joined at the end.
"""

import csv
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

from feedsieve.csv_writing import csv_writer
from feedsieve.files import atomic_path, open_atomically
from feedsieve.message import InvalidFile
from feedsieve.sources.columns import ROLES, Repeated, compact, find, listed
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_rows import CsvFile

TEXT = "msg"
ADDED = ("score", "label")
ROWS_A_PART = 5000
_OTHER_FORMATS = {
    rb"\s*(\[\s*[\[{\"]|\{\s*\")": "JSON; write the texts to a CSV with a column msg",
    rb"PK\x03\x04": "a zip file or an Excel workbook; unpack it, or save the sheet as CSV in UTF-8",
    rb"\x1f\x8b": "compressed; unpack it: gunzip -k FILE",
    rb"SQLite format 3\0": "an SQLite database; write the texts to a CSV with a column msg",
    rb"PAR1": "Parquet; let both names end in .parquet",
}
_PARQUET = b"PAR1"


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of the texts, found by its usual names if None, and those of score and label."""

    text: str | None = None
    added: tuple[str, str] = ADDED

    def find(self, path: Path, names: Sequence[str], kind: str, report: ReadReport) -> int:
        """Return the index of the texts. Raises InvalidFile, also if the file has the new names."""
        try:
            index = self._text(names)
        except Repeated as error:
            raise InvalidFile(f"{path}: {error}") from error
        if index is None:
            raise InvalidFile(
                f"{path}: expected {kind} with a column {self.text or TEXT}; the columns are"
                f" {listed(names)}; name the column of the texts with --column"
            )
        taken = {name.casefold() for name in names}
        for name in self.added:
            if name.casefold() in taken:
                raise InvalidFile(
                    f"{path} has a column {name} already; name the new columns otherwise, such as"
                    " --names model_score,model_label"
                )
        if names[index] != (self.text or TEXT):
            report.note(f"texts: column {names[index]}")
        return index

    def _text(self, names: Sequence[str]) -> int | None:
        if self.text is None:
            return find(names, ROLES["text"])
        if names.count(self.text) == 1:
            return names.index(self.text)
        return find(names, (compact(self.text),))


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a file, and their texts."""

    number: int  # from 0
    texts: list[str]
    rows: Any  # depends on the format


class Table(Protocol):
    """A file of one format."""

    def parts(self) -> Iterator[Part]:
        """Yield parts of `ROWS_A_PART` rows. Raises InvalidFile."""

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        """Write a part to `path` atomically. Raises OSError."""

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        """Join parts to one file atomically; return its positives and rows. Raises OSError."""


def open_table(
    path: Path, columns: Columns | None = None, report: ReadReport | None = None
) -> Table:
    """Return the file as a table.

    Raises InvalidFile if it is in another format, or if a column or the reader is missing.
    """
    check_format(path)
    kind = _Parquet if is_parquet(path) else _Csv
    return kind(path, columns or Columns(), report or ReadReport())


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet by its name; all others are CSV."""
    return path.suffix.lower() in (".parquet", ".pq")


def check_format(path: Path) -> None:
    """Check that a file begins as its name says. Raises InvalidFile."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error
    if is_parquet(path):
        if not start.startswith(_PARQUET):
            raise InvalidFile(
                f"{path}: expected Parquet, as the name says; a CSV file needs another name, such"
                f" as {path.stem}.csv"
            )
        return
    for pattern, name in _OTHER_FORMATS.items():
        if re.match(pattern, start):
            raise InvalidFile(f"{path}: expected CSV; the file is {name}")


class _Csv:
    """CSV with a header; scores have six decimals.

    The result has the encoding, delimiter and line ends of the file. Fields are quoted where they
    must be.
    """

    def __init__(self, path: Path, columns: Columns, report: ReadReport) -> None:
        self._added = columns.added
        self._file = CsvFile(path, report, [columns.text] if columns.text else [])
        if not self._file.header:
            raise InvalidFile(f"{path}: expected CSV; the file is empty")
        self._text = columns.find(path, self._file.header, "CSV", report)
        dialect = self._file.dialect
        self._codec = dialect.encoding.codec
        is_list = len(self._file.header) == 1 and not dialect.sep_line
        self._delimiter = "," if is_list else dialect.delimiter

    def parts(self) -> Iterator[Part]:
        rows = self._rows()
        number = 0
        while part := list(islice(rows, ROWS_A_PART)):
            yield Part(number, [row[self._text] for row in part], part)
            number += 1

    def _rows(self) -> Iterator[list[str]]:
        """Yield each row; a blank line between rows is one without values. Raises InvalidFile."""
        width, blank = len(self._file.header), 0
        for line, row in self._file.records():
            if not row:
                blank += 1
                continue
            if len(row) != width:
                raise self._file.misfit(line, row)
            for _ in range(blank):
                yield [""] * width
            blank = 0
            yield row

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        with open_atomically(path, self._codec) as file:
            self._writer(file).writerows(
                [*row, f"{score:.6f}", label]
                for row, score, label in zip(part.rows, scores, labels, strict=True)
            )

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        dialect = self._file.dialect
        with atomic_path(target) as unfinished:
            unfinished.write_bytes(dialect.encoding.mark)
            with unfinished.open("a", encoding=self._codec, newline="") as file:
                file.write(dialect.sep_line)
                self._writer(file).writerow([*self._file.header, *self._added])
            with unfinished.open("ab") as joined:
                for path in parts:
                    with path.open(encoding=self._codec, newline="") as part:
                        reader = csv.reader(part, delimiter=self._delimiter)
                        labels = [row[-1] for row in reader]
                    with path.open("rb") as part_bytes:
                        shutil.copyfileobj(part_bytes, joined)
                    positives += labels.count("positive")
                    rows += len(labels)
        return positives, rows

    def _writer(self, file: TextIO) -> Any:
        line_end = self._file.dialect.line_end
        return csv_writer(file, delimiter=self._delimiter, line_end=line_end)


class _Parquet:
    """Parquet with a column of strings; null is scored as an empty text."""

    def __init__(self, path: Path, columns: Columns, report: ReadReport) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise InvalidFile(
                f"{path}: Parquet needs pyarrow: pip install -c constraints.txt -e '.[parquet]'"
                f" ({error})"
            ) from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path, self._columns, self._report = path, columns, report

    def parts(self) -> Iterator[Part]:
        number = 0
        try:
            with self._parquet.ParquetFile(self._path) as file:
                schema = file.schema_arrow
                text = self._columns.find(self._path, schema.names, "Parquet", self._report)
                self._check_kind(schema.field(text))
                for rows in file.iter_batches(ROWS_A_PART):
                    yield Part(number, self._texts(rows.column(text), number), rows)
                    number += 1
        except (self._arrow.ArrowException, OSError) as error:
            raise InvalidFile(f"{self._path}: expected Parquet; {_one_line(error)}") from error

    def _check_kind(self, field: Any) -> None:
        types = self._arrow.types
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if not any(
            is_kind(kind)
            for is_kind in (
                *(types.is_string, types.is_large_string, types.is_string_view, types.is_null),
                *(types.is_binary, types.is_large_binary, types.is_binary_view),
            )
        ):
            raise InvalidFile(
                f"{self._path}: column {field.name} is {kind}, not string; name the column of the"
                " texts with --column"
            )

    def _texts(self, column: Any, part: int) -> list[str]:
        texts = []
        for row, value in enumerate(column.to_pylist(), 1 + part * ROWS_A_PART):
            try:
                texts.append(value.decode() if isinstance(value, bytes) else value or "")
            except UnicodeDecodeError as error:
                raise InvalidFile(
                    f"{self._path}, row {row}: expected UTF-8 text in the column of the texts"
                ) from error
        return texts

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        table = self._arrow.Table.from_batches([part.rows])
        for name, values in zip(self._columns.added, (list(scores), list(labels)), strict=True):
            table = table.append_column(name, self._arrow.array(values))
        with atomic_path(path) as unfinished:
            self._parquet.write_table(table, unfinished)

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        schema = self._parquet.read_schema(parts[0] if parts else self._path)
        if not parts:
            for name, kind in zip(self._columns.added, ("float64", "string"), strict=True):
                schema = schema.append(self._arrow.field(name, kind))
        with (
            atomic_path(target) as unfinished,
            self._parquet.ParquetWriter(unfinished, schema) as writer,
        ):
            for path in parts:
                table = self._parquet.ParquetFile(path).read()  # which takes names that repeat
                writer.write_table(table)
                positives += table[self._columns.added[1]].to_pylist().count("positive")
                rows += table.num_rows
        return positives, rows


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
