"""Nothing that was acknowledged is lost when servers are killed."""

import asyncio
import itertools
import os
import random
import signal
from pathlib import Path

import httpx
import pytest
from postgres_server import postgres
from serving import serve, wait_for, wait_until_ready

from feedsieve.store.store import MessageStore

__all__ = ["postgres"]

MESSAGES = int(os.environ.get("FEEDSIEVE_TEST_MESSAGES", "2000"))
CLIENTS = 16
KILLS = 5
AT_ONCE = 20  # messages of one request
RETRY = 0.2  # seconds
GIVE_UP = 300.0  # seconds


def bodies() -> list[list[dict[str, str]]]:
    """Return every message twice, in batches, the second time in another order."""
    messages = [
        {"source": "telegram:channel:5", "id": str(number), "text": f"сообщение {number}"}
        for number in range(MESSAGES)
    ]
    again = messages.copy()
    random.Random(5).shuffle(again)
    return [
        part[start : start + AT_ONCE]
        for part in (messages, again)
        for start in range(0, MESSAGES, AT_ONCE)
    ]


async def post_all(urls: list[str], acknowledged: set[str]) -> None:
    """Post all messages by many clients; repeat each request until it is answered with 200."""
    waiting = iter(bodies())
    turns = itertools.cycle(urls)

    async def client() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            for body in waiting:
                while True:
                    try:
                        url = f"{next(turns)}/messages?wait=0"
                        answer = await http.post(url, json=body)
                    except httpx.TransportError:
                        await asyncio.sleep(RETRY)
                        continue
                    if answer.status_code == 200:
                        acknowledged.update(one["id"] for one in body)
                        break
                    assert answer.status_code == 503, answer.text
                    await asyncio.sleep(RETRY)

    await asyncio.wait_for(asyncio.gather(*(client() for _ in range(CLIENTS))), GIVE_UP)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_acknowledged_messages_are_stored_once(database, request, small_home, tmp_path):
    servers = 1
    location: str | Path = tmp_path / "store.db"
    if database == "postgresql":
        servers = 2
        server = request.getfixturevalue("postgres")
        server.run("DROP SCHEMA IF EXISTS killed CASCADE; CREATE SCHEMA killed")
        location = f"{server.url('postgres')}?options=-csearch_path%3Dkilled"
    environment = {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(location)}
    acknowledged: set[str] = set()
    asyncio.run(kill_while_posting(environment, tmp_path, servers, acknowledged))
    store = MessageStore.open(location)
    assert len(acknowledged) == MESSAGES
    assert store.count() == MESSAGES
    stored = {message.id: message.text for message in store.read_all()}
    assert stored == {name: f"сообщение {name}" for name in acknowledged}
    store.close()


async def kill_while_posting(environment, folder, servers, acknowledged) -> None:
    """Post messages to servers of which one at a time is killed and started again."""
    places = [Restarting(environment, folder) for _ in range(servers)]
    try:
        await asyncio.gather(*(place.start() for place in places))
        posting = asyncio.create_task(post_all([place.url for place in places], acknowledged))
        for kill in range(1, KILLS + 1):
            while len(acknowledged) < kill * MESSAGES / (KILLS + 1) and not posting.done():
                await asyncio.sleep(0.01)
            assert not posting.done(), "the posts ended before the last kill"
            places[kill % servers].kill_and_start()
        await posting
    finally:
        for place in places:
            place.end()


class Restarting:
    """A server that is killed with all its processes and started again on the same port."""

    def __init__(self, environment, folder) -> None:
        self._environment = environment
        self._folder = folder
        self._running = None
        self.port = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._start()
        await asyncio.to_thread(self._wait)

    def kill_and_start(self) -> None:
        """Do not wait until it is ready: the next kill comes after some more posts."""
        os.killpg(self._server.process.pid, signal.SIGKILL)
        self._server.process.wait()
        self.end()
        self._start()

    def _start(self) -> None:
        self._running = serve(self._environment, self._folder, port=self.port)
        self._server = self._running.__enter__()
        self.port = int(self._server.url.rpartition(":")[2])

    def end(self) -> None:
        if self._running:
            self._running.__exit__(None, None, None)
            self._running = None

    def _wait(self) -> None:
        wait_until_ready(self._server)
        wait_for(self._server, "/feed", lambda response: response.status_code == 200)
