"""The real server, started on a free port as an operator starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
BENTOML = Path(sys.executable).with_name("bentoml")
START_WITHIN = 60.0  # seconds; an idle machine takes about six


@dataclass
class Server:
    """A running server: its address, a client, its process and its log."""

    url: str
    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def metric(self, name: str) -> dict[str, float]:
        """Return the samples of a metric by their labels."""
        samples = {}
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                labels, _, value = line.removeprefix(name).rpartition(" ")
                samples[labels.strip("{}")] = float(value)
        return samples


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serve(
    environment: Mapping[str, str],
    folder: Path,
    bento: str = "service:Feedsieve",
    bentoml: Path = BENTOML,
    source: Path = ROOT,
    port: int | None = None,
    host: Sequence[str] = ("--host", "127.0.0.1"),
) -> Iterator[Server]:
    """Run `bentoml serve` during the block, on a free port by default.

    Without a `bento`, `bentoml` is another command of the same options: `feedsieve`.
    `source` is its current directory; its log is written to `folder`.
    """
    port = port or free_port()
    log = folder / f"server-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [bentoml, "serve", *([bento] if bento else []), *host, "--port", str(port)],
            cwd=source,
            env=os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=300) as client:
            yield Server(url, client, process, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(server: Server) -> list[int]:
    """Return the statuses of `/readyz` up to the first 200; 0 for no answer."""
    return wait_for(server, "/readyz", lambda response: response.status_code == 200)


def wait_for(server: Server, path: str, accepts, within: float = START_WITHIN) -> list[int]:
    """Return the statuses of `path` until `accepts` returns true for an answer."""
    seen = []
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{server.log.read_text()}")
        try:
            response = server.client.get(path)
        except httpx.TransportError:
            seen.append(0)
        else:
            seen.append(response.status_code)
            if accepts(response):
                return seen
        time.sleep(0.05)
    raise AssertionError(
        f"{path} gave {sorted(set(seen))} for {within} s:\n{server.log.read_text()}"
    )


def wait_until(condition, within: float = START_WITHIN) -> None:
    """Wait until `condition` returns true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
