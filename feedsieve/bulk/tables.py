"""CSV and Parquet files of messages to score: read in parts, written with the scores.

Each part is written to a file of its own; the files are joined at the end.
"""

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from feedsieve.files import atomic_path, open_atomically
from feedsieve.message import InvalidFile
from feedsieve.sources.csv_rows import read_rows

TEXT = "msg"
ADDED = ("score", "label")
ROWS_A_PART = 5000


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


def open_table(path: Path) -> Table:
    """Return the file as a table. Raises InvalidFile if its reader is not installed."""
    return _Parquet(path) if is_parquet(path) else _Csv(path)


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet by its name; all others are CSV."""
    return path.suffix.lower() in (".parquet", ".pq")


def _check_columns(path: Path, columns: Sequence[str], kind: str) -> None:
    if TEXT not in columns:
        raise InvalidFile(
            f"{path}: expected {kind} with a column {TEXT};"
            f" the columns are {','.join(columns)[:200]!r}"
        )
    if taken := [name for name in ADDED if name in columns]:
        raise InvalidFile(f"{path} has a column {taken[0]} already; rename it first")


class _Csv:
    """CSV in UTF-8 with a header; scores have six decimals."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def parts(self) -> Iterator[Part]:
        rows = self._rows()
        column = next(rows).index(TEXT)
        number = 0
        while part := list(islice(rows, ROWS_A_PART)):
            yield Part(number, [row[column] for row in part], part)
            number += 1

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        with open_atomically(path) as file:
            csv.writer(file).writerows(
                [*row, f"{score:.6f}", label]
                for row, score, label in zip(part.rows, scores, labels, strict=True)
            )

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        with open_atomically(target) as file:
            csv.writer(file).writerow([*next(self._rows()), *ADDED])
            for path in parts:
                with path.open(encoding="utf-8", newline="") as part:
                    labels = [row[-1] for row in csv.reader(part)]
                    part.seek(0)
                    shutil.copyfileobj(part, file)
                positives += labels.count("positive")
                rows += len(labels)
        return positives, rows

    def _rows(self) -> Iterator[list[str]]:
        """Yield the header, then each row. Raises InvalidFile."""
        rows = read_rows(self._path)
        line, header = next(rows)
        if not line:
            raise InvalidFile(f"{self._path}: expected CSV; the file is empty")
        _check_columns(self._path, header, "CSV")
        yield header
        for _line, row in rows:
            yield row


class _Parquet:
    """Parquet with a column of strings; null is scored as an empty text."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise InvalidFile(
                f"{path}: Parquet needs pyarrow: pip install -c constraints.txt -e '.[parquet]'"
                f" ({error})"
            ) from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path

    def parts(self) -> Iterator[Part]:
        types = self._arrow.types
        try:
            with self._parquet.ParquetFile(self._path) as file:
                schema = file.schema_arrow
                _check_columns(self._path, schema.names, "Parquet")
                kind = schema.field(TEXT).type
                if types.is_dictionary(kind):  # pandas writes categories so
                    kind = kind.value_type
                is_text = types.is_string(kind) or types.is_large_string(kind)
                if file.metadata.num_rows and not is_text:
                    raise InvalidFile(f"{self._path}: column {TEXT} is {kind}, not string")
                for number, rows in enumerate(file.iter_batches(ROWS_A_PART)):
                    yield Part(number, [text or "" for text in rows[TEXT].to_pylist()], rows)
        except (self._arrow.ArrowException, OSError) as error:
            raise InvalidFile(f"{self._path}: expected Parquet; {error}") from error

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        table = self._arrow.Table.from_batches([part.rows])
        for name, values in zip(ADDED, (list(scores), list(labels)), strict=True):
            table = table.append_column(name, self._arrow.array(values))
        with atomic_path(path) as unfinished:
            self._parquet.write_table(table, unfinished)

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        schema = self._parquet.read_schema(parts[0] if parts else self._path)
        if not parts:
            for name, kind in zip(ADDED, ("float64", "string"), strict=True):
                schema = schema.append(self._arrow.field(name, kind))
        with (
            atomic_path(target) as unfinished,
            self._parquet.ParquetWriter(unfinished, schema) as writer,
        ):
            for path in parts:
                table = self._parquet.read_table(path)
                writer.write_table(table)
                positives += table["label"].to_pylist().count("positive")
                rows += table.num_rows
        return positives, rows
