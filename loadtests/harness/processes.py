"""Programs, servers and functions in processes of their own, and what resources they use."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import psutil

from feedsieve.errors import FeedsieveError

ROOT = Path(__file__).resolve().parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")
STOP_WITHIN = 30.0  # seconds between SIGTERM and SIGKILL
Command = Sequence[str | Path]


class ProgramFailed(FeedsieveError):
    """A program exited with an error; the message ends with its last line of output."""


class ServerTimeout(FeedsieveError):
    """A server did not become ready; the message names its log."""


class Server(NamedTuple):
    """A running server: its URL without a path, and the id of its first process."""

    url: str
    pid: int


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, whose memory is free afterwards."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_program(
    command: Command, environment: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run a program in the repository's root and return its output. Raises ProgramFailed."""
    variables, words = os.environ | dict(environment or {}), [str(word) for word in command]
    done = subprocess.run(
        words, cwd=ROOT, env=variables, input=stdin, capture_output=True, text=True
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise ProgramFailed(f"{' '.join(words[:3])} failed: {lines[-1]}")
    return done.stdout


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def bento(
    log: Path,
    environment: Mapping[str, str] | None = None,
    service: str = "service:Feedsieve",
    ready: str = "/readyz",
    port: int | None = None,
) -> Iterator[Server]:
    """Serve a Bento of this repository during the block, on a free port by default.

    Raises ServerTimeout.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command: Command = [BENTOML, "serve", service, "--working-dir", ROOT, "--host", "127.0.0.1"]
    variables = {"BENTOML_DO_NOT_TRACK": "True"} | dict(environment or {})
    with running([*command, "--port", str(port)], url + ready, log, variables, 120) as pid:
        yield Server(url, pid)


@contextmanager
def running(
    command: Command, ready: str, log: Path, environment: Mapping[str, str], within: float
) -> Iterator[int]:
    """Run a server during the block, which starts once the URL `ready` answers 2xx.

    Yields the process id. Output goes to `log`; `environment` extends this process's. The server
    and its children are stopped afterwards. Raises ServerTimeout after `within` seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, ready, log, within)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it leads its own session
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerTimeout(f"the server at {url} exited before it was ready; see {log}")
        try:
            with urlopen(url, timeout=30):
                return
        except OSError:  # URLError is one
            time.sleep(0.2)
    raise ServerTimeout(f"{url} did not answer within {within:.0f} seconds; see {log}")


@dataclass
class Usage:
    """Resources of all processes together; PSS divides shared pages, RSS counts them in each."""

    largest_pss: int = 0  # bytes
    largest_rss: int = 0
    cpu: float = 0.0  # seconds


def memory(pid: int) -> tuple[int, int]:
    """Return PSS and RSS of a process and its descendants, in bytes."""
    return _sums(pid)[:2]


@contextmanager
def watching(pid: int) -> Iterator[Usage]:
    """Watch a process and its descendants; the usage is complete after the block."""
    usage, stopped = Usage(), threading.Event()

    def sample() -> None:
        while not stopped.is_set():
            pss, rss = memory(pid)
            usage.largest_pss = max(usage.largest_pss, pss)
            usage.largest_rss = max(usage.largest_rss, rss)
            stopped.wait(0.5)  # seconds

    thread = threading.Thread(target=sample, name="watch", daemon=True)
    cpu_before = _sums(pid)[2]
    thread.start()
    try:
        yield usage
    finally:
        usage.cpu = _sums(pid)[2] - cpu_before
        stopped.set()
        thread.join()


def _sums(pid: int) -> tuple[int, int, float]:
    """Return PSS, RSS and seconds of processor time; a process that exits is left out."""
    pss, rss, cpu = 0, 0, 0.0
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.Error):
                info, times = process.memory_full_info(), process.cpu_times()
                pss, rss, cpu = pss + info.pss, rss + info.rss, cpu + times.user + times.system
    return pss, rss, cpu
