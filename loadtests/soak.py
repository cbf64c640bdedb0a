"""`python -m loadtests.soak`: whether the server's memory grows under a long mixed load."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from feedsieve.command import run_command
from loadtests.__main__ import LOCUSTFILE, SCENARIOS
from loadtests.harness.processes import ROOT, bento, memory

WARM_SECONDS = 120  # until caches are full and every shape is compiled
SAMPLE_SECONDS = 5
WINDOW = 60  # seconds, whose median counts: single values depend on the requests in progress
MOST_GROWTH = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.soak",
        description="Start the server on a free port of this machine, load it with readers and"
        " integrators, and compare its memory at the end with that after two minutes. Fails if it"
        " grew by more than 5 %%, or if Locust saw a failure.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=int, default=600, help="duration of the load, at least 240")
    add("--users", type=int, default=20, help="number of concurrent users")
    add("--log", type=Path, default=Path("reports/soak.log"), metavar="FILE", help="server's log")
    options = parser.parse_args()
    if options.seconds < WARM_SECONDS + 2 * WINDOW:
        parser.error("--seconds: at least 240, two minutes of which warm up")
    return run_command("loadtests.soak", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    options.log.parent.mkdir(parents=True, exist_ok=True)
    users = str(options.users)
    command = [str(Path(sys.executable).with_name("locust")), "--locustfile", str(LOCUSTFILE)]
    command += ["--headless", "--only-summary", "--users", users, "--spawn-rate", users]
    command += ["--run-time", f"{options.seconds}s", "--slack", "100", *SCENARIOS["mixed"]]
    samples: list[tuple[float, int]] = []
    with bento(options.log) as server:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LOCUST_HOST": server.url}
        load = subprocess.Popen(command, env=environment)
        started = time.monotonic()
        while load.poll() is None:
            time.sleep(SAMPLE_SECONDS)
            samples.append((time.monotonic() - started, memory(server.pid)[0]))
            if len(samples) % (60 // SAMPLE_SECONDS) == 0:
                print(f"{samples[-1][0]:.0f} s: {samples[-1][1] / 2**20:.0f} MiB", flush=True)
    first = _median(samples, WARM_SECONDS, WARM_SECONDS + WINDOW)
    last = _median(samples, options.seconds - WINDOW, options.seconds)
    growth = last / first
    print(f"after two minutes {first / 2**20:.0f} MiB, at the end {last / 2**20:.0f}: {growth:.3f}")
    return int(load.returncode != 0 or growth > MOST_GROWTH)


def _median(samples: list[tuple[float, int]], begin: float, end: float) -> float:
    """Return the median of bytes between two seconds."""
    return median(size for second, size in samples if begin <= second <= end)


if __name__ == "__main__":
    sys.exit(main())
