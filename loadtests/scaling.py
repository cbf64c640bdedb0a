"""`python -m loadtests.scaling`: measure how bulk scoring scales, and write docs/scaling.md."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
from distributed import Client
from tqdm import tqdm

from data.generate import compose
from feedsieve.bulk import score_file, tables
from feedsieve.bulk.tables import ROWS_A_PART, open_table
from feedsieve.command import run_command
from feedsieve.scoring import model_store
from feedsieve.settings import settings
from loadtests.harness import page
from loadtests.harness.messages import SEED, variations
from loadtests.harness.processes import ProgramFailed
from train.compute.dask_cluster import Broadcast, connect

SIZES = (ROWS_A_PART // 50, ROWS_A_PART // 5, ROWS_A_PART)  # of parts whose cost is measured
EMPTY_PARTS = 200  # sent to measure the round trip
# The command with another part size.
WITH_PARTS_OF = """
import sys
from feedsieve.__main__ import main
from feedsieve.bulk import tables
tables.ROWS_A_PART = int(sys.argv.pop(1))
sys.exit(main())
"""


# A bulk engine that scores nothing, to time reading and writing.
NO_SCORES: Any = SimpleNamespace(
    model="none",
    cascade=False,
    score_parts=lambda parts, _progress: ((part, np.zeros(len(part.texts))) for part in parts),
    label=lambda _score: "negative",
)


def write_messages(texts: Sequence[str], rows: int, path: Path) -> None:
    """Write a CSV of `rows` messages."""
    messages = pd.Series(islice(variations(texts), rows), name=tables.TEXT)
    messages.to_csv(path, index_label="msg_id", lineterminator="\r\n")


def measure(source: Path, rows: int, cluster: str | None, part: int) -> dict[str, Any]:
    """Score a file by the command; return its speed and memory. Raises ProgramFailed.

    `throughput` is in messages a second, without the start. `by_tenth` and `by_end` are the largest
    RSS in bytes by kind of process, up to a tenth and up to the end of the file.
    """
    started = time.monotonic()
    samples = pd.DataFrame(_samples(source, rows, cluster, part))
    seconds, done = time.monotonic() - started, samples["rows"].cummax()
    start = samples["seconds"][done > 0].min()
    end = samples["seconds"][done == done.max()].min()
    scored = done.max() - done[done > 0].min()  # none if all was done between two samples
    memory = samples.drop(columns=["seconds", "rows"])
    return {
        "seconds": seconds,
        "throughput": scored / (end - start) if scored else rows / seconds,
        "by_tenth": memory[done.shift(fill_value=0) < rows / 10].max().dropna().to_dict(),
        "by_end": memory.max().to_dict(),
    }


def _samples(source: Path, rows: int, cluster: str | None, part: int) -> Iterator[dict[str, float]]:
    """Run the command and yield seconds, rows done, and RSS by kind of process, until it exits."""
    target = source.with_name(f"scored-{source.name}")
    script = ["-m", "feedsieve"] if part == ROWS_A_PART else ["-c", WITH_PARTS_OF, str(part)]
    command = [sys.executable, *script, "score", str(source), str(target), "--force"]
    command += ["--cluster", cluster] if cluster else []
    environment = os.environ | {"FEEDSIEVE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    parts, started = target.with_name(f"{target.name}.parts"), time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as log,
        tqdm(desc=cluster or "one process", total=rows, unit="message") as bar,
    ):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        while process.poll() is None:
            done = min(rows, part * sum(1 for _file in parts.glob("[0-9]*")))
            bar.update(max(0, done - bar.n))
            elapsed = time.monotonic() - started
            yield {"seconds": elapsed, "rows": done} | _memory(process.pid)
            time.sleep(0.2)
        if process.returncode:
            log.seek(0)
            raise ProgramFailed(f"feedsieve score failed: {log.read().strip()[-2000:]}")


def _memory(pid: int) -> dict[str, float]:
    """Return the RSS of the command and of its largest worker, in bytes."""
    memory: dict[str, float] = {}
    with suppress(psutil.Error):  # a process has exited
        command = psutil.Process(pid)
        memory["command"] = command.memory_info().rss
        for child in command.children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                memory["worker"] = max(memory.get("worker", 0), child.memory_info().rss)
    return memory


def measure_limits(source: Path, rows: int, part: int, texts: Sequence[str]) -> dict[str, Any]:
    """Measure what more workers do not speed up.

    `reader_writer` is in messages a second, if scoring took no time. By rows of a part,
    `round_trips` has seconds without scoring, and `throughputs` messages a second of `local:1`.
    """
    target, shorter = source.with_name("copied.csv"), source.with_name("shorter.csv")
    started = time.monotonic()
    score_file.score_file(NO_SCORES, source, target, replace=True)
    reader_writer = rows / (time.monotonic() - started)
    with connect("local:1") as client:
        round_trips = {size: _round_trip(client, texts, size) for size in SIZES}
    throughputs = {}
    for size in (size for size in SIZES if size <= part):
        few = max(4 * size, part)
        write_messages(texts, few, shorter)
        throughputs[size] = measure(shorter, few, "local:1", size)["throughput"]
    parts = {"round_trips": round_trips, "throughputs": throughputs}
    return parts | {"reader_writer": reader_writer, "bytes_a_row": target.stat().st_size / rows}


def _round_trip(client: Client, texts: Sequence[str], size: int) -> float:
    """Return the seconds that an idle worker and the scheduler take for a part of `size` rows."""
    part = list(islice(variations(texts), size))
    sent = Broadcast(client, lambda _folder: None)
    for count in (5, EMPTY_PARTS):  # the first few are a warm-up
        started = time.monotonic()
        parts = ((number, part) for number in range(count))
        list(sent.map(lambda texts, _nothing: np.zeros(len(texts)), parts))
    seconds = (time.monotonic() - started) / EMPTY_PARTS
    sent.release()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scaling",
        description="Score a file of different messages by one process and by clusters of this"
        " machine, and write docs/scaling.md: throughput, memory, limits, and an estimate for a"
        " billion messages. Needs a model, an idle machine, and a core for each worker.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=int, default=100_000, help="messages in the file")
    add("--data", type=Path, metavar="FILE", help="CSV or Parquet with a column msg to repeat")
    add("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="of the clusters")
    add("--out", type=Path, default=Path("docs/scaling.md"), metavar="FILE.md", help="the page")
    options = parser.parse_args()
    return run_command("loadtests.scaling", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    part = max(1, min(ROWS_A_PART, options.rows // 20))
    tables.ROWS_A_PART = part
    score_file.ROWS_A_PART = part  # type: ignore[attr-defined] # for what is measured in this process
    model_store.find_pair(settings().model)  # fails early if there is no model
    load, runs = os.getloadavg()[0], {}
    if options.data:
        texts = [text for piece in open_table(options.data).parts() for text in piece.texts]
    else:
        texts = [message.text for message in compose(5000, SEED)]
    with tempfile.TemporaryDirectory(prefix="feedsieve-scaling-") as folder:
        source = Path(folder) / "messages.csv"
        write_messages(texts, options.rows, source)
        for cluster in (None, *(f"local:{count}" for count in options.workers)):
            runs[cluster or "one process"] = measure(source, options.rows, cluster, part)
        limits = measure_limits(source, options.rows, part, texts)
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "load": load}
    figures = {"runs": runs, "limits": limits, "rows": options.rows, "part": part}
    text = page.render("scaling", **machine, **figures)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
