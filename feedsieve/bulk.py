"""Scoring a file of any length: part by part, in bounded memory, each part scored and kept once."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from feedsieve.files import LOCK, UnwritableFile, one_run_at_a_time, open_whole
from feedsieve.message import UnreadableFile
from feedsieve.scorer import Label, Scorer
from feedsieve.tables import ROWS_A_PART, Part, Table, is_parquet, open_table

Progress = Callable[[int], object]
"""Is told how many messages were done since its last call."""

_RUN_FILE = "run.json"


class NoEngine(RuntimeError):
    """What should score is not there, or gave up; says which and why."""


class Engine(Protocol):
    """What scores parts: this process, or a cluster."""

    model: str
    cascade: bool  # whether words answer where they are sure

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        """Yield each part with its scores, (texts,), in whatever order they get done."""

    def label(self, score: float) -> Label:
        """Return the decision that a score means."""


class InProcess:
    """Scores parts here, one after the other."""

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
    replace: bool = False,
) -> tuple[int, int]:
    """Write `source` with the columns score and label to `target`; return positives and rows.

    Both are CSV (UTF-8, with a header) or both Parquet, by their names, with a column msg. What is
    scored is kept in the folder `TARGET.parts` until all of it is: a run that was ended, and is
    started again with the same file and model, goes on from there. The target is there whole or
    not at all. `replace` replaces a target, and begins anew whatever another run has kept.

    Raises UnreadableFile, UnwritableFile and RunningAlready.
    """
    check_paths(source, target, replace)
    table, run = open_table(source), _run(engine, source)
    folder = target.with_name(f"{target.name}.parts")
    try:
        with one_run_at_a_time(folder):
            _claim(folder, run, replace)
            done = False
            try:
                counts = table.join(_score_parts(engine, table, folder, progress), target)
                done = True
            finally:
                if done or not _parts(folder):
                    _clear(folder)
    except OSError as error:
        raise UnwritableFile(f"{error.filename or target}: {error.strerror or error}") from error
    return counts


def check_paths(source: Path, target: Path, replace: bool) -> None:
    """Raise UnreadableFile or UnwritableFile if `score_file` could not begin with these files."""
    if target.resolve() == source.resolve():
        raise UnwritableFile(f"{target} is the file to read; name another one to write")
    if is_parquet(target) != is_parquet(source):
        raise UnwritableFile(f"{target} and {source} must both be CSV or both be Parquet")
    if target.exists() and not replace:
        raise UnwritableFile(
            f"{target} is there already and was left as it is; name another file, or --force"
        )
    _status(source)


def _score_parts(engine: Engine, table: Table, folder: Path, progress: Progress) -> list[Path]:
    """Score the parts that are not in `folder` yet; return where all of them are, in order."""
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


def _status(source: Path) -> os.stat_result:
    try:
        return source.stat()
    except OSError as error:
        raise UnreadableFile(f"{source}: {error.strerror or error}") from error


def _run(engine: Engine, source: Path) -> dict[str, Any]:
    """Return what tells runs apart that must not go on from one another."""
    status = _status(source)
    return {
        "model": engine.model,
        "cascade": engine.cascade,
        "source": str(source.resolve()),
        "bytes": status.st_size,
        "changed": status.st_mtime_ns,
        "rows_a_part": ROWS_A_PART,
    }


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.isdecimal()]


def _clear(folder: Path) -> None:
    """Remove what a run keeps, and the folder unless somebody else has something in it."""
    cut_short = folder.glob(".[0-9]*.[0-9]*")
    for file in (*_parts(folder), *cut_short, folder / _RUN_FILE, folder / LOCK):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _claim(folder: Path, run: dict[str, Any], replace: bool) -> None:
    """Make `folder` this run's. Raises UnwritableFile if another run's parts are in it."""
    file = folder / _RUN_FILE
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) == run:
        return
    if _parts(folder) and not replace:
        raise UnwritableFile(
            f"{folder} keeps what was scored of another file, by another model or with another"
            " FEEDSIEVE_CASCADE; move it away, or --force to begin anew"
        )
    for part in _parts(folder):
        part.unlink()
    with open_whole(file) as out:
        out.write(json.dumps(run, indent=2) + "\n")
