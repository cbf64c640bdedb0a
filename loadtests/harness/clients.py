"""HTTP clients in a process of their own, which reads a job and prints a load as JSON."""

import asyncio
import json
import random
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from loadtests.harness.messages import different, repeating
from loadtests.harness.processes import run_program

STREAMS = {"different": different, "repeating": repeating}
TIMEOUT = aiohttp.ClientTimeout(120.0)  # seconds


@dataclass(frozen=True)
class Job:
    """Requests to send: POSTs of texts, or GETs of `paths` drawn at random."""

    url: str  # of the server, without a path
    seconds: float
    warm_up: float = 0.0  # seconds, not counted
    clients: int = 1  # closed loop: each has one request in flight
    rate: float = 0.0  # open loop: requests a second, whether or not earlier ones were answered
    paths: list[str] = field(default_factory=lambda: ["/score"])
    texts: list[str] = field(default_factory=list)
    stream: str = "different"  # one of STREAMS
    run: int = 0  # makes the texts differ from those of other runs
    texts_a_request: int = 1
    key: str = "texts"  # of the texts in the body
    prefix: str = ""  # put before each text
    as_messages: bool = False  # bodies of POST /messages, each message with a new identifier

    def requests(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the path and body of each request; the body of a GET is None."""
        if not self.texts:
            rng = random.Random(self.run)
            while True:
                yield rng.choice(self.paths), None
        texts = (self.prefix + text for text in STREAMS[self.stream](self.texts, self.run))
        numbers = count()
        while True:
            part = list(islice(texts, self.texts_a_request))
            body: object = {self.key: part}
            if self.as_messages:
                source = f"run {self.run}"
                body = [{"source": source, "id": str(next(numbers)), "text": text} for text in part]
            yield self.paths[0], json.dumps(body, ensure_ascii=False).encode()


class Latency(NamedTuple):
    """Number of requests and percentiles of their latency, in milliseconds."""

    requests: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Load:
    """Results of a job. A status is HTTP's, or the name of the error if there was no response."""

    by_status: dict[str, Latency]
    throughput: float  # successful requests a second; requests cut by the time's ends count in part
    retry_after: int  # responses with Retry-After
    client_cpu: float  # cores that the clients used

    @property
    def success(self) -> Latency | None:
        """Latency of successful requests, or None if there was none."""
        return self.by_status.get("200")

    @property
    def failures(self) -> dict[str, int]:
        """Number of failed requests by status."""
        return {status: one.requests for status, one in self.by_status.items() if status != "200"}

    @property
    def figures(self) -> dict[str, Any]:
        """Percentiles of successful requests, each None if there was none, failures and cores."""
        success = {name: getattr(self.success, name, None) for name in ("p50", "p95", "p99")}
        return success | {"failures": self.failures, "client_cpu": self.client_cpu}


def load(job: Job) -> Load:
    """Run a job in a process of its own. Raises ProgramFailed."""
    command = [sys.executable, "-m", "loadtests.harness.clients"]
    result = json.loads(run_program(command, stdin=json.dumps(asdict(job))))
    latencies = result.pop("by_status").items()
    return Load({status: Latency(*latency) for status, latency in latencies}, **result)


class _Response(NamedTuple):
    start: float
    end: float
    status: str
    has_retry_after: bool


class _Clients:
    """Sends a job's requests."""

    def __init__(self, job: Job) -> None:
        self.job, self.requests, self.responses = job, job.requests(), list[_Response]()

    async def run(self) -> Load:
        job, limit = self.job, aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(job.url, connector=limit, timeout=TIMEOUT) as self.session:
            loop = asyncio.create_task(self._open_loop() if job.rate else self._closed_loop())
            await asyncio.sleep(job.warm_up)
            start, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(job.seconds)
            end, cpu = time.perf_counter(), time.process_time() - cpu
            await loop
        # In an open loop all count: a late response belongs to a request sent in time.
        counted = [one for one in self.responses if job.rate or start <= one.end <= end]
        milliseconds = defaultdict(list)
        for one in counted:
            milliseconds[one.status].append(1000 * (one.end - one.start))
        by_status = {
            status: Latency(len(times), *np.percentile(times, (50, 95, 99)).tolist())
            for status, times in sorted(milliseconds.items())
        }
        retry_after, answered = sum(one.has_retry_after for one in counted), 0.0
        for one in (one for one in self.responses if one.status == "200"):
            within = max(0.0, min(one.end, end) - max(one.start, start))
            answered += 1 if job.rate else within / (one.end - one.start)
        return Load(by_status, answered / (end - start), retry_after, cpu / (end - start))

    async def _closed_loop(self) -> None:
        end = time.perf_counter() + self.job.warm_up + self.job.seconds

        async def one_client() -> None:
            while time.perf_counter() < end:
                await self._send(*next(self.requests), start=time.perf_counter())

        await asyncio.gather(*(one_client() for _ in range(self.job.clients)))

    async def _open_loop(self) -> None:
        """Send each request when it is due; its latency counts from then, even if it left late."""
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(self.job.rate * self.job.seconds)):
                due = start + number / self.job.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._send(*next(self.requests), start=due))

    async def _send(self, path: str, body: bytes | None, start: float) -> None:
        method, headers = ("POST", {"Content-Type": "application/json"}) if body else ("GET", None)
        try:
            async with self.session.request(method, path, data=body, headers=headers) as answer:
                await answer.read()
                outcome = str(answer.status), "Retry-After" in answer.headers
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            outcome = type(error).__name__, False
        self.responses.append(_Response(start, time.perf_counter(), *outcome))


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # an overload has many in flight
    json.dump(asdict(asyncio.run(_Clients(Job(**json.load(sys.stdin))).run())), sys.stdout)
