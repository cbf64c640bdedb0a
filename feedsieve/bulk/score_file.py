"""Scoring of a file of any length, part by part, in bounded memory; interrupted runs resume."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from feedsieve.bulk.tables import (
    ROWS_A_PART,
    Columns,
    Part,
    Table,
    check_format,
    is_parquet,
    open_table,
)
from feedsieve.errors import FeedsieveError
from feedsieve.files import LOCK, UnwritableFile, one_run_at_a_time, open_atomically
from feedsieve.message import Label
from feedsieve.scoring.scorer import Scorer
from feedsieve.sources.report import ReadReport

Progress = Callable[[int], object]
"""Called with the number of messages done since the last call."""

_RUN_FILE = "run.json"


class ClusterUnavailable(FeedsieveError):
    """The cluster does not answer, lost its workers, or needs software that is not installed."""


class Engine(Protocol):
    """A scorer of parts: this process, or a cluster."""

    model: str
    cascade: bool  # whether the word model scores texts it is sure of

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        """Yield each part with its scores, (texts,), in any order."""

    def label(self, score: float) -> Label:
        """Return the decision for a score."""


class InProcess:
    """Scores parts in this process, one after the other."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.model = scorer.model
        self.cascade = scorer.cascade is not None
        self.label = scorer.label

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        for part in parts:
            yield part, self._scorer.score(part.texts, progress)


def score_file(
    engine: Engine,
    source: Path,
    target: Path,
    progress: Progress = lambda _done: None,
    *,
    columns: Columns | None = None,
    replace: bool = False,
    report: ReadReport | None = None,
) -> tuple[int, int]:
    """Write `source` with the columns score and label to `target`; return positives and rows.

    Both are CSV with a header or both Parquet, by their names. A CSV keeps its encoding, delimiter
    and line ends. `columns` names the columns; the report gets notes on how it was read. Scored
    parts are stored in the folder `TARGET.parts` until all are done: an interrupted run with the
    same file and model resumes. The target is written completely or not at all. `replace` replaces
    the target and the parts of another run.

    Raises InvalidFile, UnwritableFile and AlreadyRunning.
    """
    check_paths(source, target, replace)
    columns = columns or Columns()
    table = open_table(source, columns, report or ReadReport())
    run = _describe_run(engine, source, columns)
    folder = target.with_name(f"{target.name}.parts")
    try:
        with one_run_at_a_time(folder):
            _claim(folder, run, replace)
            is_done = False
            try:
                counts = table.join(_score_parts(engine, table, folder, progress), target)
                is_done = True
            finally:
                if is_done or not _parts(folder):
                    _clear(folder)
    except OSError as error:
        raise UnwritableFile(f"{error.filename or target}: {error.strerror or error}") from error
    return counts


def check_paths(source: Path, target: Path, replace: bool) -> None:
    """Check that `score_file` can start. Raises InvalidFile and UnwritableFile."""
    if target.resolve() == source.resolve():
        raise UnwritableFile(f"{target} is the file to read; name another one to write")
    if is_parquet(target) != is_parquet(source):
        raise UnwritableFile(f"{target} and {source} must both be CSV or both be Parquet")
    if target.exists() and not replace:
        raise UnwritableFile(
            f"{target} exists and was not replaced; name another file, or use --force"
        )
    check_format(source)


def _score_parts(engine: Engine, table: Table, folder: Path, progress: Progress) -> list[Path]:
    """Score the parts that are not in `folder`; return the paths of all parts, in order."""
    paths: list[Path] = []

    def missing() -> Iterator[Part]:
        for part in table.parts():
            paths.append(folder / f"{part.number:06}")
            if paths[-1].exists():
                progress(len(part.texts))
            else:
                yield part

    for part, scores in engine.score_parts(missing(), progress):
        values = scores.tolist()
        table.write(part, values, [engine.label(score) for score in values], paths[part.number])
    return paths


def _describe_run(engine: Engine, source: Path, columns: Columns) -> dict[str, Any]:
    """Return the values that must be equal for a run to resume."""
    status = source.stat()
    return {
        "model": engine.model,
        "cascade": engine.cascade,
        "source": str(source.resolve()),
        "bytes": status.st_size,
        "changed": status.st_mtime_ns,
        "rows_a_part": ROWS_A_PART,
        "columns": [columns.text, *columns.added],
    }


def _claim(folder: Path, run: dict[str, Any], replace: bool) -> None:
    """Make `folder` this run's. Raises UnwritableFile if it has parts of another run."""
    file = folder / _RUN_FILE
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) == run:
        return
    if _parts(folder) and not replace:
        raise UnwritableFile(
            f"{folder} has scores of another file, by another model or with another"
            " FEEDSIEVE_CASCADE; move it away, or use --force to start again"
        )
    for part in _parts(folder):
        part.unlink()
    with open_atomically(file) as out:
        out.write(json.dumps(run, indent=2) + "\n")


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.isdecimal()]


def _clear(folder: Path) -> None:
    """Remove the files of a run, and the folder if nothing else is in it."""
    unfinished = folder.glob(".[0-9]*.[0-9]*")
    for file in (*_parts(folder), *unfinished, folder / _RUN_FILE, folder / LOCK):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
