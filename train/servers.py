"""Servers that a command starts on this machine, and ends when it has done with them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

END_WITHIN = 30.0  # seconds, before a server is killed


class NoAnswer(RuntimeError):
    """A server did not start; says where and why."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: str,
    log: Path,
    environment: Mapping[str, str],
    within: float,
) -> Iterator[int]:
    """Run a server until the block ends, which begins when the URL `ready` answers with success.

    Yields the id of its process. What it prints goes into `log`. `environment` is added to that of
    this process, and it may take `within` seconds. It is ended, and all that it started. Raises
    NoAnswer.
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
        _end(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NoAnswer(f"the server at {url} ended before it answered; {log} says why")
        try:
            with urlopen(url, timeout=30):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise NoAnswer(f"{url} gave no answer for {within:.0f} seconds; see {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # of the session that it was started in
        process.wait()
