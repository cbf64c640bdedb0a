"""Files of messages to score, CSV or Parquet: read a part at a time, written with two columns more.

A part is written by itself and the parts are joined in the end, so that what is done stays done.
"""

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from feedsieve.files import open_whole, path_whole
from feedsieve.message import UnreadableFile

TEXT = "msg"
ADDED = ("score", "label")
ROWS_A_PART = 5000
_LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131,072


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file, one after the other, and the texts that are to be scored in them."""

    number: int  # counted from 0
    texts: list[str]
    rows: Any  # as the format has them


class Table(Protocol):
    """A file of one format."""

    def parts(self) -> Iterator[Part]:
        """Yield the file in parts of `ROWS_A_PART` rows. Raises UnreadableFile."""

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        """Write a part to `path`, whole or not at all. Raises OSError."""

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        """Make one file of the parts, whole or not at all; return its positives and its rows.

        Raises OSError.
        """


def open_table(path: Path) -> Table:
    """Return the file as a table. Raises UnreadableFile if there is no way to read it."""
    return _Parquet(path) if is_parquet(path) else _Csv(path)


def is_parquet(path: Path) -> bool:
    """Return whether a file's name says that it is Parquet; anything else is CSV."""
    return path.suffix.lower() in (".parquet", ".pq")


def _check_columns(path: Path, columns: Sequence[str], kind: str) -> None:
    if TEXT not in columns:
        raise UnreadableFile(
            f"{path}: expected {kind} with a column {TEXT};"
            f" the columns are {','.join(columns)[:200]!r}"
        )
    if taken := [name for name in ADDED if name in columns]:
        raise UnreadableFile(f"{path} has a column {taken[0]} already; rename it first")


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
        with open_whole(path) as file:
            csv.writer(file).writerows(
                [*row, f"{score:.6f}", label]
                for row, score, label in zip(part.rows, scores, labels, strict=True)
            )

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        with open_whole(target) as file:
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
        """Yield the header, then each row, all of one width. Raises UnreadableFile."""
        path, line = self._path, 0
        csv.field_size_limit(_LONGEST_FIELD)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                header: list[str] = []
                for row in reader:
                    line = reader.line_num
                    if not header:
                        header = [name.strip() for name in row]
                        _check_columns(path, header, "CSV")
                        row = header
                    elif len(row) != len(header):
                        if not row:
                            continue
                        raise UnreadableFile(
                            f"{path}, line {line}: expected {len(header)} fields, as in the header,"
                            f" not {len(row)}"
                        )
                    yield row
                if not header:
                    raise UnreadableFile(f"{path}: expected CSV; the file is empty")
        except UnicodeDecodeError as error:
            raise UnreadableFile(f"{path}, after line {line}: expected UTF-8 text") from error
        except csv.Error as error:
            raise UnreadableFile(f"{path}, after line {line}: expected CSV; {error}") from error
        except OSError as error:
            raise UnreadableFile(f"{path}: {error.strerror or error}") from error


class _Parquet:
    """Parquet with a column of strings; one that is null is scored as an empty one."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UnreadableFile(
                f"{path}: Parquet needs pyarrow: pip install -c constraints.txt -e '.[parquet]'"
                f" ({error})"
            ) from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path

    def parts(self) -> Iterator[Part]:
        arrow = self._arrow
        try:
            with self._parquet.ParquetFile(self._path) as file:
                schema = file.schema_arrow
                _check_columns(self._path, schema.names, "Parquet")
                kind = schema.field(TEXT).type
                if arrow.types.is_dictionary(kind):  # as pandas writes categories
                    kind = kind.value_type
                if file.metadata.num_rows and not (
                    arrow.types.is_string(kind) or arrow.types.is_large_string(kind)
                ):
                    raise UnreadableFile(f"{self._path}: column {TEXT} is {kind}, not string")
                for number, rows in enumerate(file.iter_batches(ROWS_A_PART)):
                    texts = ["" if text is None else text for text in rows[TEXT].to_pylist()]
                    yield Part(number, texts, rows)
        except (arrow.ArrowException, OSError) as error:
            raise UnreadableFile(f"{self._path}: expected Parquet; {error}") from error

    def write(self, part: Part, scores: Sequence[float], labels: Sequence[str], path: Path) -> None:
        table = self._arrow.Table.from_batches([part.rows])
        for name, values in zip(ADDED, (list(scores), list(labels)), strict=True):
            table = table.append_column(name, self._arrow.array(values))
        with path_whole(path) as unfinished:
            self._parquet.write_table(table, unfinished)

    def join(self, parts: Sequence[Path], target: Path) -> tuple[int, int]:
        positives = rows = 0
        schema = self._parquet.read_schema(parts[0]) if parts else self._empty_schema()
        with (
            path_whole(target) as unfinished,
            self._parquet.ParquetWriter(unfinished, schema) as writer,
        ):
            for path in parts:
                table = self._parquet.read_table(path)
                writer.write_table(table)
                positives += table["label"].to_pylist().count("positive")
                rows += table.num_rows
        return positives, rows

    def _empty_schema(self) -> Any:
        schema = self._parquet.read_schema(self._path)
        types = (self._arrow.float64(), self._arrow.string())
        for name, kind in zip(ADDED, types, strict=True):
            schema = schema.append(self._arrow.field(name, kind))
        return schema
