"""Scoring a file: a CSV in, the same CSV with scores out, of any length in bounded memory."""

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from feedsieve.message import UnreadableFile
from feedsieve.scorer import Scorer

TEXT = "msg"
ADDED = ("score", "label")
ROWS_AT_ONCE = 1000
_LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131,072


class UnwritableFile(RuntimeError):
    """A file that cannot be written, or must not be replaced; says which and why."""


def score_file(
    scorer: Scorer,
    source: Path,
    target: Path,
    progress: Callable[[int], object] | None = None,
    *,
    replace: bool = False,
) -> tuple[int, int]:
    """Write `source` with the columns score and label to `target`; return positives and rows.

    `source` is CSV in UTF-8 with a header and a column msg; scores have six decimals. The target
    is there whole or not at all, and one that is there already only goes if `replace` says so.

    Raises UnreadableFile and UnwritableFile.
    """
    if target.resolve() == source.resolve():
        raise UnwritableFile(f"{target} is the file to read; name another one to write")
    if target.exists() and not replace:
        raise UnwritableFile(
            f"{target} is there already and was left as it is; name another file, or --force"
        )
    try:
        with open_whole(target) as file:
            return _score_rows(scorer, _read(source), csv.writer(file), progress)
    except OSError as error:
        raise UnwritableFile(f"{target}: {error.strerror or error}") from error


@contextmanager
def open_whole(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a file to write text that is there whole, or not at all, once the block ends.

    What is at `path` already is replaced then, and stays if the block raises. Raises OSError.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding=encoding, newline="") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(unfinished)):  # None: a write failed
            error.filename = str(path)  # the file that the user knows of
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _score_rows(
    scorer: Scorer,
    rows: Iterator[list[str]],
    out: Any,  # a csv.writer, whose type has no public name
    progress: Callable[[int], object] | None,
) -> tuple[int, int]:
    header = next(rows)
    column = header.index(TEXT)
    out.writerow([*header, *ADDED])
    positives = count = 0
    while part := list(islice(rows, ROWS_AT_ONCE)):
        scores = scorer.score([row[column] for row in part], progress).tolist()
        labels = [scorer.label(score) for score in scores]
        out.writerows(
            [*row, f"{score:.6f}", label]
            for row, score, label in zip(part, scores, labels, strict=True)
        )
        positives += labels.count("positive")
        count += len(part)
    return positives, count


def _read(path: Path) -> Iterator[list[str]]:
    """Yield the header, then each row, all of one width. Raises UnreadableFile."""
    csv.field_size_limit(_LONGEST_FIELD)
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header: list[str] = []
            for row in reader:
                line = reader.line_num
                if not header:
                    header = row
                    if TEXT not in header:
                        raise UnreadableFile(
                            f"{path}: expected CSV with a column {TEXT};"
                            f" the columns are {','.join(header)[:200]!r}"
                        )
                    if taken := [name for name in ADDED if name in header]:
                        raise UnreadableFile(
                            f"{path} has a column {taken[0]} already; rename it first"
                        )
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
