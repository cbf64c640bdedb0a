"""A training as a task of a Dask worker, with its output sent to the client line by line."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from distributed import Client, get_worker
from distributed.scheduler import KilledWorker

from feedsieve import __version__
from feedsieve.bulk.score_file import ClusterUnavailable
from feedsieve.errors import FeedsieveError
from train.report.file_names import METRICS_FILE

_REPORT = "report"  # in the folder of a job
# `python -m train` that ends with its worker, however that ends
_COMMAND = """
import sys
from feedsieve.serving.server_exit import end_with_parent
end_with_parent()
from train.__main__ import main
sys.exit(main())
"""
# Dask gives each worker one thread; a training has its machine for itself.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECONDS_BETWEEN_BARS = 10  # a log is no terminal
_CHECK_SECONDS = 5  # between two checks that the worker is there


class JobFailed(FeedsieveError):
    """A training cannot be a job, or has failed; the message has the last line of its output."""


@dataclass(frozen=True)
class Machine:
    """A worker's machine."""

    address: str
    name: str
    version: str  # of feedsieve
    has_gpu: bool


@dataclass(frozen=True)
class _Outcome:
    exit_code: int
    lines: int
    metrics: dict[str, Any]


class Job:
    """A training on a worker."""

    def __init__(
        self,
        client: Client,
        machine: Machine,
        arguments: Sequence[str],
        settings: Mapping[str, str],
    ) -> None:
        """Start `python -m train` with `arguments`, and `settings` as environment variables."""
        self.machine = machine
        self.lines: list[str] = []  # of its output, as `follow` has seen them
        self._client = client
        self._is_cancelled = False
        self._topic = f"feedsieve-job-{uuid4().hex}"
        self._events: SimpleQueue[str | None] = SimpleQueue()  # None: the job is done
        client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))
        self._future = client.submit(
            _train,
            self._topic,
            list(arguments),
            dict(settings),
            workers=[machine.address],
            pure=False,
        )
        self._future.add_done_callback(lambda _future: self._events.put(None))

    def follow(self, show: Callable[[str], object] = print) -> dict[str, Any]:
        """Pass the lines of its output to `show` as they come; return its metrics once it ends.

        They have the tags of both models, too. Raises JobFailed and ClusterUnavailable. Ctrl-C
        cancels the job.
        """
        try:
            while (line := self._next()) is not None:
                self.lines.append(line)
                show(line)
            outcome = self._outcome()
            with suppress(Empty):
                while len(self.lines) < outcome.lines:  # those that the result has overtaken
                    self.lines.append(str(self._events.get(timeout=_CHECK_SECONDS)))
                    show(self.lines[-1])
        except FeedsieveError:
            raise
        except BaseException:  # Ctrl-C, or an output that nobody reads
            self.cancel()
            raise
        finally:
            self._client.unsubscribe_topic(self._topic)
        if outcome.exit_code:
            last = next((line for line in reversed(self.lines) if line.strip()), "no output")
            raise JobFailed(
                f"the job on {self.machine.name} ended with exit code {outcome.exit_code}: {last}"
            )
        return outcome.metrics

    def cancel(self) -> None:
        """End the training, or do not let it begin. Nothing happens once it has ended."""
        self._is_cancelled = True
        self._future.cancel()
        with suppress(Exception):  # of a cluster that has gone, and the training with it
            self._client.run(_terminate, self._topic, workers=[self.machine.address])

    def _next(self) -> str | None:
        """Return the next line, or None once the job is done. Raises ClusterUnavailable."""
        while True:
            with suppress(Empty):
                return self._events.get(timeout=_CHECK_SECONDS)
            # A worker that is started anew has another address, and a training is not repeated.
            if self.machine.address not in self._client.scheduler_info(-1)["workers"]:
                raise self._gone()

    def _outcome(self) -> _Outcome:
        try:
            outcome: _Outcome = self._future.result()
        except (CancelledError, KilledWorker, OSError) as error:
            if self._is_cancelled:
                raise JobFailed(f"the job on {self.machine.name} was cancelled") from error
            raise self._gone() from error
        except ImportError as error:
            raise _lacking(error) from error
        return outcome

    def _gone(self) -> ClusterUnavailable:
        return ClusterUnavailable(f"the worker on {self.machine.name}, or its scheduler, has gone")


def machines(client: Client) -> list[Machine]:
    """Return the machine of each worker. Raises ClusterUnavailable."""
    try:
        found = client.run(_describe)
    except ImportError as error:
        raise _lacking(error) from error
    return [Machine(address, *described) for address, described in found.items()]


def choose(machines: Sequence[Machine]) -> Machine:
    """Return the machine to train on. Raises ClusterUnavailable for another version."""
    if others := [one for one in machines if one.version != __version__]:
        raise ClusterUnavailable(
            f"{others[0].name} has feedsieve {others[0].version}, and this machine {__version__}"
        )
    return max(machines, key=lambda machine: machine.has_gpu)


def _lacking(error: ImportError) -> ClusterUnavailable:
    return ClusterUnavailable(
        f"workers need the same feedsieve[train,cluster] as this machine: {__version__} ({error})"
    )


def _describe() -> tuple[str, str, bool]:
    """Return name, version and GPU; runs on workers."""
    import torch

    return socket.gethostname(), __version__, torch.cuda.is_available()


def _train(topic: str, arguments: Sequence[str], settings: Mapping[str, str]) -> _Outcome:
    """Train in a process of its own, and send its lines. Runs on a worker."""
    worker = get_worker()
    bars = {"TQDM_MININTERVAL": str(_SECONDS_BETWEEN_BARS), "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **bars, **settings}
    for name in _THREADS:
        environment.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="feedsieve-job-", dir=worker.local_directory) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *arguments, "--report", _REPORT],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # the return of a bar ends a line, too
            encoding="utf-8",
            errors="replace",
        )
        _running[topic] = process
        if topic in _cancelled:
            process.terminate()
        lines = 0
        try:
            assert process.stdout
            for line in process.stdout:
                worker.log_event(topic, line.rstrip("\n"))
                lines += 1
            code = process.wait()
        finally:
            del _running[topic]
            process.kill()
        if code:
            return _Outcome(code, lines, {})
        metrics = Path(folder, _REPORT, METRICS_FILE).read_text(encoding="utf-8")
        return _Outcome(code, lines, json.loads(metrics))


# Of this worker, by topic.
_running: dict[str, "subprocess.Popen[str]"] = {}
_cancelled: set[str] = set()


def _terminate(topic: str) -> None:
    _cancelled.add(topic)
    if process := _running.get(topic):
        process.terminate()
