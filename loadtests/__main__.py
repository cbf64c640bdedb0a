"""`python -m loadtests`: start the server, load it, write a report, and fail if it did badly."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from loadtests.server import ROOT, bento
from train.servers import NoAnswer

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SCENARIOS = {"reader": ["Reader"], "integrator": ["Integrator"], "mixed": ["Reader", "Integrator"]}


def main() -> int:
    options = _parser().parse_args()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    log = options.report.with_suffix(".log")
    locust = Path(sys.executable).with_name("locust")
    try:
        with bento(log) as server:
            done = subprocess.run(
                [str(locust), "--headless", "--locustfile", str(LOCUSTFILE), "--host", server.url]
                + ["--users", str(options.users), "--spawn-rate", str(options.users)]
                + ["--run-time", f"{options.seconds}s", "--only-summary"]
                + ["--slack", str(options.slack), "--html", str(options.report)]
                + SCENARIOS[options.scenario],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=False,
            )
    except NoAnswer as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return 1
    print(f"see {options.report}; the server's output is in {log}")
    return done.returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Start the server on a free port of this machine, load it with readers and"
        " integrators for a while, and write Locust's report. Fails, and says why, if a threshold"
        " of loadtests/thresholds.py does not hold: p99 by route, failures, requests a second.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="mixed", help="who comes")
    parser.add_argument("--users", type=int, default=20, help="how many at once")
    parser.add_argument("--seconds", type=int, default=30, help="how long")
    parser.add_argument(
        "--slack", type=float, default=1.0, metavar="TIMES", help="how much slower it may be"
    )
    parser.add_argument(
        "--report", type=Path, default=Path("reports/loadtest.html"), metavar="FILE", help="where"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
