"""Rows of a CSV file with a header, checked."""

import csv
from collections.abc import Iterator
from pathlib import Path

from feedsieve.message import InvalidFile

_MAX_FIELD = 2**31 - 1  # characters; Python's default limit is 131,072


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of the header (0 and none if the file is empty), then of rows.

    Blank lines are skipped; names in the header are stripped. Raises InvalidFile if the file is
    missing, not UTF-8 or not CSV, or if a row is longer or shorter than the header.
    """
    csv.field_size_limit(_MAX_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            yield reader.line_num, header
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise InvalidFile(
                        f"{path}, line {reader.line_num}: expected {len(header)} fields,"
                        f" as in the header, not {len(row)}"
                    )
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise InvalidFile(
            f"{path}, after line {reader.line_num}: expected UTF-8 text; {error.reason}"
        ) from error
    except csv.Error as error:
        raise InvalidFile(f"{path}, line {reader.line_num}: expected CSV; {error}") from error
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error
