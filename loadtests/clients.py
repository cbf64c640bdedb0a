"""HTTP clients in a process of their own, so that they take no time from the server's interpreter.

`python -m loadtests.clients` reads a `Job` as JSON and prints a `Load`; `load` starts it.
"""

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np

from loadtests.messages import different, repeating
from loadtests.plan import Failed

ROOT = Path(__file__).resolve().parent.parent
STREAMS = {"different": different, "repeating": repeating}
ANSWERED_WITHIN = 120.0  # seconds, or the request has failed
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Job:
    """What the clients are to do.

    Closed loop: each of `clients` has one request in flight. Open loop, if there is a `rate`:
    so many requests a second, whatever becomes of those before. Requests are POSTs of texts, or
    GETs of `paths`, drawn at random.
    """

    url: str  # of the server, without a path
    seconds: float
    warm_up: float = 0.0  # seconds, not counted
    clients: int = 1
    rate: float = 0.0  # requests a second
    paths: list[str] = field(default_factory=lambda: ["/score"])
    texts: list[str] = field(default_factory=list)
    stream: str = "different"  # or "repeating": what is made of the texts
    run: int = 0  # marks the texts, so that no two runs have one in common
    texts_a_request: int = 1
    key: str = "texts"  # of the texts in the body
    prefix: str = ""  # before each text, for servers that do not know the encoder's


@dataclass(frozen=True)
class Latency:
    """How long requests took, in milliseconds."""

    requests: int
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        return cls(len(seconds), *(1000 * np.percentile(seconds, (50, 95, 99))).tolist())


@dataclass(frozen=True)
class Load:
    """What became of the requests that ended in time.

    A status is HTTP's, or the name of the error that came in its place.
    """

    by_status: dict[str, Latency]
    answered: float  # successful requests, of those that the ends of the time cut the part within
    seconds: float
    retry_after: int  # answers that said when to try again
    client_cpu: float  # share of a core that the clients took

    @property
    def throughput(self) -> float:
        """Successful requests a second."""
        return self.answered / self.seconds

    @property
    def success(self) -> Latency | None:
        """How long successful requests took, or None if there was none."""
        return self.by_status.get("200")

    @property
    def failures(self) -> dict[str, int]:
        """How many requests failed, by status."""
        return {
            status: latency.requests
            for status, latency in self.by_status.items()
            if status != "200"
        }


class _Answer(NamedTuple):
    began: float
    ended: float
    status: str
    says_when: bool

    def part_within(self, began: float, ended: float) -> float:
        """Return which part of the request's time, 0 to 1, lies between two moments."""
        within = min(self.ended, ended) - max(self.began, began)
        return max(0.0, within) / (self.ended - self.began)


def load(job: Job) -> Load:
    """Run the clients in a process of their own. Raises Failed."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.clients"],
        cwd=ROOT,
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"the clients failed: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout)
    by_status = {status: Latency(**latency) for status, latency in said.pop("by_status").items()}
    return Load(by_status, **said)


def requests(job: Job) -> Iterator[tuple[str, bytes | None]]:
    """Yield the path and the body of each request, or None for a GET."""
    if not job.texts:
        rng = random.Random(job.run)
        while True:
            yield rng.choice(job.paths), None
    texts = (job.prefix + text for text in STREAMS[job.stream](job.texts, job.run))
    while True:
        body = {job.key: list(islice(texts, job.texts_a_request))}
        yield job.paths[0], json.dumps(body, ensure_ascii=False).encode()


async def _run(job: Job) -> Load:
    sent, answers = requests(job), list[_Answer]()
    limit = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(ANSWERED_WITHIN)
    async with aiohttp.ClientSession(job.url, connector=limit, timeout=patience) as session:
        loop = asyncio.create_task((_open if job.rate else _closed)(job, session, sent, answers))
        await asyncio.sleep(job.warm_up)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(job.seconds)
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        await loop
    taken = defaultdict(list)
    # Of an open loop all count: what is answered late was sent in time.
    counted = [one for one in answers if job.rate or began <= one.ended <= ended]
    for answer in counted:
        taken[answer.status].append(answer.ended - answer.began)
    successes = [one for one in answers if one.status == "200"]
    return Load(
        by_status={status: Latency.of(seconds) for status, seconds in sorted(taken.items())},
        answered=sum(1.0 if job.rate else one.part_within(began, ended) for one in successes),
        seconds=ended - began,
        retry_after=sum(answer.says_when for answer in counted),
        client_cpu=cpu / (ended - began),
    )


async def _closed(
    job: Job,
    session: aiohttp.ClientSession,
    sent: Iterator[tuple[str, bytes | None]],
    answers: list[_Answer],
) -> None:
    until = time.perf_counter() + job.warm_up + job.seconds

    async def one_client() -> None:
        while time.perf_counter() < until:
            answers.append(await _ask(session, *next(sent), since=time.perf_counter()))

    await asyncio.gather(*(one_client() for _ in range(job.clients)))


async def _open(
    job: Job,
    session: aiohttp.ClientSession,
    sent: Iterator[tuple[str, bytes | None]],
    answers: list[_Answer],
) -> None:
    """Send each request at its time; it takes from then on, even if it left late."""
    began = time.perf_counter()

    async def one_request(due: float, path: str, body: bytes | None) -> None:
        answers.append(await _ask(session, path, body, since=due))

    async with asyncio.TaskGroup() as group:
        for number in range(round(job.rate * job.seconds)):
            due = began + number / job.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one_request(due, *next(sent)))


async def _ask(
    session: aiohttp.ClientSession, path: str, body: bytes | None, since: float
) -> _Answer:
    says_when = False
    try:
        async with session.request(
            "GET" if body is None else "POST", path, data=body, headers=JSON if body else None
        ) as response:
            await response.read()
            status, says_when = str(response.status), "Retry-After" in response.headers
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        status = type(error).__name__
    return _Answer(since, time.perf_counter(), status, says_when)


def main() -> int:
    job = Job(**json.load(sys.stdin))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # an overload has many in flight
    json.dump(asdict(asyncio.run(_run(job))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
