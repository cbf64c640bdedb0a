"""`python -m loadtests`: start the server, load it with Locust, and check thresholds."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from feedsieve.command import run_command
from loadtests.harness.processes import ROOT, bento

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SCENARIOS = {"reader": ["Reader"], "integrator": ["Integrator"], "mixed": ["Reader", "Integrator"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Start the server on a free port of this machine, load it with readers and"
        " integrators, and write Locust's report. Fails if a threshold of"
        " loadtests/harness/thresholds.py does not hold: p99 by route, failures, throughput.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--scenario", choices=list(SCENARIOS), default="mixed", help="users to simulate")
    add("--users", type=int, default=20, help="number of concurrent users")
    add("--seconds", type=int, default=30, help="duration of the load")
    add("--slack", type=float, default=1.0, metavar="TIMES", help="factor for every threshold")
    add("--report", type=Path, default=Path("reports/loadtest.html"), metavar="FILE", help="report")
    options = parser.parse_args()
    return run_command("loadtests", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    options.report.parent.mkdir(parents=True, exist_ok=True)
    log, users = options.report.with_suffix(".log"), str(options.users)
    command = [str(Path(sys.executable).with_name("locust")), "--locustfile", str(LOCUSTFILE)]
    command += ["--headless", "--only-summary", "--users", users, "--spawn-rate", users]
    command += ["--run-time", f"{options.seconds}s", "--slack", str(options.slack)]
    command += ["--html", str(options.report), *SCENARIOS[options.scenario]]
    with bento(log) as server:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LOCUST_HOST": server.url}
        code = subprocess.run(command, env=environment, check=False).returncode
    print(f"see {options.report}; the server's output is in {log}")
    return code


if __name__ == "__main__":
    sys.exit(main())
