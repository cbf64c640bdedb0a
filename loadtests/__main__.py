"""`python -m loadtests`: start the server, load it, write a report, and fail if it did badly."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
READY_WITHIN = 120.0  # seconds


def main() -> int:
    options = _parser().parse_args()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    bentoml, locust = (Path(sys.executable).with_name(name) for name in ("bentoml", "locust"))
    log = options.report.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(bentoml), "serve", "service:Feedsieve"]
            + ["--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"BENTOML_DO_NOT_TRACK": "True"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(f"{url}/readyz", server)
        done = subprocess.run(
            [str(locust), "--headless", "--locustfile", str(LOCUSTFILE), "--host", url]
            + ["--users", str(options.users), "--spawn-rate", str(options.users)]
            + ["--run-time", f"{options.seconds}s", "--only-summary", "--exit-code-on-error", "1"]
            + ["--html", str(options.report)],
            check=False,
        )
    except TimeoutError as error:
        print(f"loadtests: {error}; see {log}", file=sys.stderr)
        return 1
    finally:
        _end(server)
    print(f"see {options.report}; the server's output is in {log}")
    return done.returncode


def _end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise TimeoutError("the server ended before it was ready; its log says why")
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"the server was not ready within {READY_WITHIN:.0f} seconds")


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
