"""`python -m loadtests.rolling_restart`: restart two servers behind HAProxy in turn, under load."""

import argparse
import asyncio
import csv
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError
from feedsieve.store.store import MessageStore
from loadtests.harness import postgres
from loadtests.harness.processes import ROOT, bento, free_port, running

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
# The addresses in that file, which are others here.
PROXY, STATISTICS = "127.0.0.1:8080", "127.0.0.1:8404"
SERVERS = {"one": "127.0.0.1:3000", "two": "127.0.0.1:3001"}
PAUSE = 0.2  # seconds between two requests of a client; without it, a start takes a minute
SETTLE = 0.5  # seconds of load on both servers between two restarts
UP_WITHIN = 30.0  # seconds until the proxy has seen that a server is ready


class RestartFailed(FeedsieveError):
    """A request was lost, or the proxy did not see a server again."""


@dataclass
class Load:
    """Clients that send requests until they are ended, and the answers that they got."""

    url: str
    clients: int
    outcomes: Counter[str] = field(default_factory=Counter)  # "200", or why there was no answer
    acknowledged: set[str] = field(default_factory=set)  # identifiers of stored messages
    longest: float = 0.0  # seconds
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests during the block."""
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(asyncio.run, self._run())
            try:
                yield
            finally:
                self._ended.set()
            done.result()

    @property
    def requests(self) -> int:
        """The number of requests."""
        return self.outcomes.total()

    @property
    def lost(self) -> Counter[str]:
        """The outcomes of requests without a good answer."""
        return self.outcomes - Counter({"200": self.outcomes["200"]})

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=number % 2)  # half open a new one each time
        async with httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits) as http:
            turn = 0
            while not self._ended.is_set():
                started = time.monotonic()
                try:
                    answer = await self._send(http, number, turn)
                except httpx.TransportError as error:
                    self.outcomes[f"no answer: {error!r}"] += 1
                else:
                    reason = "" if answer.is_success else f": {answer.text}"
                    self.outcomes[f"{answer.status_code}{reason}"] += 1
                self.longest = max(self.longest, time.monotonic() - started)
                turn += 1
                await asyncio.sleep(PAUSE)

    async def _send(self, http: httpx.AsyncClient, number: int, turn: int) -> httpx.Response:
        text = f"Отдам котёнка, {number} {turn}"
        if turn % 3 == 0:
            return await http.get("/feed")
        if turn % 3 == 1:
            return await http.post("/score", json={"texts": [text]})
        message = {"source": "rolling", "id": f"{number}-{turn}", "text": text}
        answer = await http.post("/messages", json=message)
        if answer.is_success:
            self.acknowledged.add(answer.json()[0]["id"])
        return answer


class Pair:
    """Two servers on one store, and HAProxy before them. Raises ServerTimeout."""

    def __init__(self, folder: Path, database: str, stack: ExitStack) -> None:
        """Start all three; the stack ends them."""
        self._folder = folder
        self._environment = {"FEEDSIEVE_DB": database}
        self._ports = {name: free_port() for name in SERVERS}
        self._stacks = {name: stack.enter_context(ExitStack()) for name in SERVERS}
        self.restarts = 0
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._start, SERVERS))
        addresses = {PROXY: free_port(), STATISTICS: free_port()}
        addresses |= {SERVERS[name]: port for name, port in self._ports.items()}
        config = re.sub(
            "|".join(map(re.escape, addresses)),
            lambda match: f"127.0.0.1:{addresses[match[0]]}",
            CONFIG.read_text(encoding="utf-8"),
        )
        (folder / CONFIG.name).write_text(config, encoding="utf-8")
        self.url = f"http://127.0.0.1:{addresses[PROXY]}"
        self._statistics = f"http://127.0.0.1:{addresses[STATISTICS]}/;csv"
        command: list[str | Path] = [haproxy() or "haproxy", "-db", "-f", folder / CONFIG.name]
        log = folder / "haproxy.log"
        stack.enter_context(running(command, f"{self.url}/readyz", log, {}, UP_WITHIN))

    def restart(self, name: str) -> None:
        """End a server by SIGTERM, start it, and wait until HAProxy sends it requests again."""
        self._stacks[name].close()
        self._start(name)
        deadline = time.monotonic() + UP_WITHIN
        while not all(status == "UP" for status in self._seen().values()):
            if time.monotonic() > deadline:
                raise RestartFailed(f"HAProxy does not see the server {name}: {self._seen()}")
            time.sleep(0.1)

    def _start(self, name: str) -> None:
        log = self._folder / f"{name}-{self.restarts}.log"
        self.restarts += 1
        self._stacks[name].enter_context(bento(log, self._environment, port=self._ports[name]))

    def _seen(self) -> dict[str, str]:
        """Return the states that HAProxy has of the servers."""
        page = httpx.get(self._statistics, timeout=30).text.removeprefix("# ")
        rows = csv.DictReader(page.splitlines())
        return {row["svname"]: row["status"] for row in rows if row["svname"] in SERVERS}


def haproxy() -> str | None:
    """Return the path of HAProxy, None if it is not installed."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/sbin")


def roll(folder: Path, database: str, seconds: float, clients: int) -> tuple[Load, int]:
    """Restart each server once, and again until the time is over; return the load and restarts.

    Raises RestartFailed if an acknowledged message is not in the store.
    """
    with ExitStack() as stack:
        pair = Pair(folder, database, stack)
        started, before = time.monotonic(), pair.restarts
        load = Load(pair.url, clients)
        with load.running():
            while pair.restarts == before or time.monotonic() - started < seconds:
                for name in SERVERS:
                    time.sleep(SETTLE)
                    pair.restart(name)
            time.sleep(SETTLE)
        restarts = pair.restarts - before
    store = MessageStore.open(database)
    if missing := load.acknowledged - store.find("", list(load.acknowledged)).keys():
        raise RestartFailed(f"{len(missing)} acknowledged messages are not in the store")
    return load, restarts


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.rolling_restart",
        description="Start two servers on one store, and HAProxy with deploy/haproxy/haproxy.cfg"
        " before them, on free ports of this machine. While clients send requests, end one server"
        " by SIGTERM and start it again, then the other, and so on. Fails if a request has no"
        " answer or another status than 200, or if an acknowledged message is not stored. The"
        " store is PostgreSQL's where it is installed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=int, default=60, help="duration; each server restarts once at least")
    add("--clients", type=int, default=32, help="number of concurrent clients")
    add("--sqlite", action="store_true", help="use SQLite even if PostgreSQL is installed")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers, too
    return run_command("loadtests.rolling_restart", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if haproxy() is None:
        raise RestartFailed("HAProxy is not installed: apt-get install haproxy")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = str(folder / "messages.db")
        if not options.sqlite and (programs := postgres.programs()):
            server = stack.enter_context(postgres.temporary(programs))
            server.run("CREATE DATABASE feedsieve")
            database = server.url("feedsieve")
        load, restarts = roll(folder, database, options.seconds, options.clients)
        kind = "SQLite" if database.endswith(".db") else "PostgreSQL"
    print(
        f"{kind}: {load.requests} requests of {options.clients} clients, {restarts} restarts,"
        f" {len(load.acknowledged)} messages acknowledged and stored,"
        f" longest answer {load.longest:.2f} s, lost {load.lost.total()}"
    )
    if load.lost:
        raise RestartFailed(f"lost requests: {dict(load.lost)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
