"""`python -m loadtests`: start the server, load it, write a report, and fail if it did badly."""

import argparse
import subprocess
import sys
from pathlib import Path

from train.servers import NoAnswer, free_port, running

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
READY_WITHIN = 120.0  # seconds


def main() -> int:
    options = _parser().parse_args()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bentoml, locust = (Path(sys.executable).with_name(name) for name in ("bentoml", "locust"))
    log = options.report.with_suffix(".log")
    serve = [str(bentoml), "serve", "service:Feedsieve", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "True"}
    try:
        with running(serve, f"{url}/readyz", log, quiet, READY_WITHIN):
            done = subprocess.run(
                [str(locust), "--headless", "--locustfile", str(LOCUSTFILE), "--host", url]
                + ["--users", str(options.users), "--spawn-rate", str(options.users)]
                + ["--run-time", f"{options.seconds}s", "--only-summary"]
                + ["--exit-code-on-error", "1", "--html", str(options.report)],
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
        " integrators for a while, and write Locust's report. Fails if a request failed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--users", type=int, default=20, help="readers and integrators at once")
    parser.add_argument("--seconds", type=int, default=30, help="how long")
    parser.add_argument(
        "--report", type=Path, default=Path("reports/loadtest.html"), metavar="FILE", help="where"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
