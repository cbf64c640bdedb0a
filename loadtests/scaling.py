"""`python -m loadtests.scaling`: what more processes gain in scoring a file, and where that ends.

Writes docs/scaling.md. Run it on an idle machine that has a model (`make train`) and at least as
many cores as the largest cluster asked for.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from distributed import Client
from tqdm import tqdm

from data.generate import compose
from feedsieve import bulk, models, tables
from feedsieve.bulk import Progress, score_file
from feedsieve.settings import settings
from feedsieve.tables import ROWS_A_PART, Part, open_table
from loadtests.messages import SEED, variations
from train.cluster import Sent, connect

SAMPLE = 5000  # messages of the sample corpus, which the file repeats with variations
SAMPLED_EVERY = 0.2  # seconds
BILLION = 1_000_000_000
CORES = 16  # of a machine in the extrapolation
SIZES = (ROWS_A_PART // 50, ROWS_A_PART // 5, ROWS_A_PART)  # of parts whose cost is measured
EMPTY_PARTS = 200  # sent to do nothing, for each size
# The command, with parts of another size than its own.
WITH_PARTS_OF = """
import sys
import feedsieve.__main__ as command
from feedsieve import tables
tables.ROWS_A_PART = int(sys.argv.pop(1))
sys.exit(command.main())
"""


class Sample(NamedTuple):
    """A look at a run: after so many seconds, what is done of the file, and memory (RSS, bytes)."""

    seconds: float
    rows: int
    memory: dict[str, int]  # by the kind of process


@dataclass(frozen=True)
class Run:
    """One run of `feedsieve score`, and how many messages a second it scored once it had started.

    Memory is the largest by the kind of process, until a tenth of the file was done and until all.
    """

    seconds: float
    throughput: float
    by_tenth: dict[str, int]
    by_end: dict[str, int]


@dataclass(frozen=True)
class Limits:
    """What does not get faster with more workers, and what a part costs."""

    reader_writer: float  # messages a second, if scoring took no time
    parts: dict[int, float]  # by rows: seconds that a part takes there and back, without scoring
    sizes: dict[int, float]  # by rows: messages a second of `local:1`, with scoring
    bytes_a_row: float  # of what is written


class _NoScores:
    """Scores nothing, so that what is left is reading and writing; a `feedsieve.bulk.Engine`."""

    model, cascade = "none", False

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        for part in parts:
            yield part, np.zeros(len(part.texts))

    def label(self, score: float) -> Any:
        return "negative"


def write_messages(texts: Sequence[str], rows: int, path: Path) -> None:
    """Write a CSV of `rows` messages."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["msg_id", tables.TEXT])
        writer.writerows(enumerate(islice(variations(texts), rows)))


def score(source: Path, rows: int, cluster: str | None, part: int) -> Run:
    """Score a file by the command, and watch its processes."""
    seconds, samples = _watch(source, rows, cluster, part)
    begun = next((sample for sample in samples if sample.rows), samples[-1])
    last = max(sample.rows for sample in samples)
    ended = next(sample for sample in samples if sample.rows == last)
    tenth = next((n for n, sample in enumerate(samples, 1) if sample.rows >= rows / 10), None)
    between = ended.seconds - begun.seconds  # none, if all was done between two looks
    return Run(
        seconds,
        (ended.rows - begun.rows) / between if between else rows / seconds,
        _largest(samples[:tenth]),
        _largest(samples),
    )


def _watch(source: Path, rows: int, cluster: str | None, part: int) -> tuple[float, list[Sample]]:
    """Return the seconds, and what was seen from time to time. Raises RuntimeError."""
    target = source.with_name(f"scored-{source.name}")
    command = [sys.executable, "-m", "feedsieve"]
    if part != ROWS_A_PART:
        command = [sys.executable, "-c", WITH_PARTS_OF, str(part)]
    command += ["score", str(source), str(target), "--force"]
    command += ["--cluster", cluster] if cluster else []
    samples = []
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | {"FEEDSIEVE_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        watched = psutil.Process(process.pid)
        parts = target.with_name(f"{target.name}.parts")
        with tqdm(desc=cluster or "one process", total=rows, unit="message") as bar:
            while process.poll() is None:
                done = min(rows, part * sum(1 for _file in parts.glob("[0-9]*")))
                bar.update(max(0, done - bar.n))
                samples.append(Sample(time.monotonic() - began, done, _memory(watched)))
                time.sleep(SAMPLED_EVERY)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[:4])} failed: {log.read()[-2000:]}")
    return time.monotonic() - began, samples


def _memory(watched: psutil.Process) -> dict[str, int]:
    """Return the memory of the command's process, and of the largest of its workers, in bytes."""
    found: dict[str, int] = {}
    try:
        found["command"] = watched.memory_info().rss
        for child in watched.children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                found["worker"] = max(found.get("worker", 0), child.memory_info().rss)
    except psutil.Error:  # it has just ended
        pass
    return found


def _largest(samples: Sequence[Sample]) -> dict[str, int]:
    kinds = sorted({kind for sample in samples for kind in sample.memory})
    return {kind: max(sample.memory.get(kind, 0) for sample in samples) for kind in kinds}


def limits(source: Path, rows: int, part: int, texts: Sequence[str]) -> Limits:
    """Measure what each message and each part costs beside its score."""
    target = source.with_name("copied.csv")
    began = time.monotonic()
    score_file(_NoScores(), source, target, replace=True)
    reader_writer = rows / (time.monotonic() - began)
    with connect("local:1") as client:
        there_and_back = {size: _empty_parts(client, texts, size) for size in SIZES}
    shorter = source.with_name("shorter.csv")
    scored = {}
    for size in (size for size in SIZES if size <= part):
        few = max(4 * size, part)
        write_messages(texts, few, shorter)
        scored[size] = score(shorter, few, "local:1", size).throughput
    return Limits(reader_writer, there_and_back, scored, target.stat().st_size / rows)


def _empty_parts(client: Client, texts: Sequence[str], size: int) -> float:
    """Return the seconds that a part of `size` messages takes there and back, one worker idle."""
    part = list(islice(variations(texts), size))
    sent = Sent(client, _hold_nothing)
    list(sent.call(_zeros, ((number, part) for number in range(5))))  # it starts
    began = time.monotonic()
    list(sent.call(_zeros, ((number, part) for number in range(EMPTY_PARTS))))
    seconds = (time.monotonic() - began) / EMPTY_PARTS
    sent.forget()
    return seconds


def _hold_nothing(_folder: Path) -> None:
    return None


def _zeros(texts: list[str], _held: None) -> np.ndarray:
    return np.zeros(len(texts))


def page(runs: dict[str, Run], found: Limits, rows: int, part: int, load: float) -> str:
    """Return docs/scaling.md."""
    alone = next(iter(runs.values()))
    table = [
        "| processes | seconds | messages a second | against one process |"
        " command, 10 % | command, 100 % | worker, 10 % | worker, 100 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        memory = [
            f"{of.get(kind, 0) / 2**20:,.0f} MiB" if of.get(kind) else "–"
            for kind in ("command", "worker")
            for of in (run.by_tenth, run.by_end)
        ]
        table.append(
            f"| {name} | {run.seconds:,.1f} | {run.throughput:,.1f} |"
            f" {run.throughput / alone.throughput:.2f} | {' | '.join(memory)} |"
        )
    costs = [
        f"| {size:,} | {1000 * seconds:.1f} |"
        f" {f'{found.sizes[size]:,.1f}' if size in found.sizes else '–'} |"
        for size, seconds in found.parts.items()
    ]
    return "\n".join(
        [
            "# How far scoring scales",
            "",
            f"Written by `python -m loadtests.scaling`: {rows:,} different messages in a CSV,"
            f" scored {part:,} at a time by `feedsieve score`, on {os.cpu_count()} cores"
            f" ({platform.machine()}), whose load was {load:.1f} before. Messages a second are"
            " counted from the first part on, so without the start. Memory is the largest resident"
            " set until a tenth, and until all, of the file was scored; of the workers, that of the"
            " largest.",
            "",
            *table,
            "",
            "## What a part costs",
            "",
            "There and back is what a part takes if nothing is scored: it is packed, goes through"
            " the scheduler, and its answer comes back. Beside it is what one worker scores with"
            " parts of this size.",
            "",
            "| messages in a part | there and back, ms | messages a second |",
            "|---|---|---|",
            *costs,
            "",
            "## A billion messages, on paper",
            "",
            *_extrapolation(runs, found),
            "",
        ]
    )


def _extrapolation(runs: dict[str, Run], found: Limits) -> list[str]:
    worker = list(runs.values())[-1].throughput / max(1, _workers(list(runs)[-1]))
    size, seconds = max(found.parts.items())
    dispatch = size / seconds  # messages a second that come back from one worker, were scores free
    days = BILLION / worker / 86400
    narrowest = 1 / (1 / dispatch + 1 / found.reader_writer)  # both are work of one process
    machines = days / CORES
    fed = narrowest / worker
    return [
        f"A worker scores {worker:,.1f} messages a second, so a billion are {days:,.0f} days of"
        f" one core: {machines:,.1f} machines of {CORES} cores for a day, if all are kept busy.",
        "",
        "What all workers share:",
        "",
        f"- One process reads, writes and joins: {found.reader_writer:,.0f} messages a second,"
        f" {BILLION / found.reader_writer / 3600:,.1f} hours for a billion.",
        f"- It packs {BILLION / size:,.0f} parts of {size:,} for the scheduler, and unpacks scores:"
        f" at most {1000 * seconds:,.1f} ms each, {BILLION / dispatch / 3600:,.1f} hours.",
        f"- The result takes {BILLION * found.bytes_a_row / 1e9:,.0f} GB, and as much again until"
        " its parts are joined.",
        "",
        f"First to be too slow is that process: it feeds {fed:,.0f} workers, {fed / CORES:,.1f}"
        f" such machines, and with them a billion take {BILLION / narrowest / 3600:,.1f} hours. For"
        " more, cut the file, and start a command for each piece: pieces share nothing.",
    ]


def _workers(name: str) -> int:
    return int(name.partition(":")[2] or 1)


def main() -> int:
    options = _parser().parse_args()
    part = max(1, min(ROWS_A_PART, options.rows // 20))
    tables.ROWS_A_PART = bulk.ROWS_A_PART = part  # of what is measured in this process
    models.find_pair(settings().model)  # none is better known now
    load = os.getloadavg()[0]
    if options.data:
        texts = [text for piece in open_table(options.data).parts() for text in piece.texts]
    else:
        texts = [message.text for message in compose(SAMPLE, SEED)]
    runs = {}
    with tempfile.TemporaryDirectory(prefix="feedsieve-scaling-") as folder:
        source = Path(folder) / "messages.csv"
        write_messages(texts, options.rows, source)
        for name in ("one process", *(f"local:{count}" for count in options.workers)):
            cluster = name if name.startswith("local:") else None
            runs[name] = score(source, options.rows, cluster, part)
            print(f"{name}: {runs[name].throughput:,.1f} messages a second", flush=True)
        found = limits(source, options.rows, part, texts)
    options.out.write_text(page(runs, found, options.rows, part, load), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scaling",
        description="Score a file of different messages by one process and by clusters of this"
        " machine, say what that gains and costs, and what a billion messages would take.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=100_000, help="messages in the file")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="CSV or Parquet with a column msg to repeat"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="of the clusters"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.md"), metavar="FILE.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
