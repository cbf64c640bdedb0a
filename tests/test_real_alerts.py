"""Alerts of a real Prometheus, each fired by what it watches, on a real server.

Windows, waits and ages of the rules are divided, by 120 or for drift by 3600, since nobody waits a
week; their conditions are those of the file. Samples are the server's own, scraped each second:
promtool would have to be given made-up times for them.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_servers import FeedServer, Page, run_server
from serving import Server, serve, wait_for, wait_until_ready

from loadtests.harness.prometheus import Prometheus, faster_rules, is_installed, prometheus

pytestmark = [
    pytest.mark.lab,  # most of a minute, of which windows and waits take the most
    pytest.mark.skipif(
        not is_installed(), reason="no Prometheus is installed: apt-get install prometheus"
    ),
]
FACTORS = {"feedsieve": 120, "feedsieve-drift": 3600}
SIX_HOURS = 6.0  # seconds, so divided
WITHIN = 60.0  # seconds; the slowest takes half of it on an idle machine
DRIFT, OVERLOAD = "FeedsieveScoreDrift", "FeedsieveOverloaded"
SILENT, STUCK = "FeedsieveSourceSilent", "FeedsieveBacklogStuck"
GONE, DOWN = "FeedsieveStoreUnreadable", "FeedsieveDown"
WATCHED = {DRIFT, OVERLOAD, SILENT, STUCK, GONE, DOWN}


@dataclass
class Watched:
    """A server with one place for requests, the feed that it follows, and its Prometheus."""

    server: Server
    page: Page
    database: Path
    metrics: Prometheus

    def firing(self) -> set[str]:
        """Return the alerts that fire; of others only those that are pending have any series."""
        series = self.metrics.query('ALERTS{alertstate="firing"}')
        return WATCHED & {one["metric"]["alertname"] for one in series}

    def wait_for(self, alert: str) -> None:
        self.metrics.wait_for(f'ALERTS{{alertname="{alert}", alertstate="firing"}}', WITHIN)

    def score(self, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), 256):
            body = {"texts": texts[start : start + 256]}
            assert self.server.client.post("/score", json=body).status_code == 200

    def query(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(statement)


@pytest.fixture(scope="module")
def watched(small_home, tmp_path_factory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    database = folder / "messages.db"
    feeds = FeedServer()
    page = feeds.pages["/news"] = Page(
        b"<rss version='2.0'><channel><title>x</title></channel></rss>"
    )
    with run_server(feeds):
        own = {
            "BENTOML_HOME": str(small_home),
            "FEEDSIEVE_DB": str(database),
            "FEEDSIEVE_WAITING": "1",
            "FEEDSIEVE_SOURCES": f"{feeds.url}/news",
            "FEEDSIEVE_FEED_INTERVAL": "1",
        }
        with serve(own, folder) as server:
            wait_until_ready(server)
            target = {"feedsieve": server.url.removeprefix("http://")}
            with prometheus(folder / "prometheus", target, faster_rules(FACTORS)) as metrics:
                yield Watched(server, page, database, metrics)


def test_each_alert_fires_once_what_it_watches_happens(watched):
    metrics = watched.metrics
    metrics.wait_for("feedsieve_watch_last_success_timestamp_seconds", WITHIN)
    metrics.wait_for('feedsieve_score_count{origin="request"} == 0', WITHIN)
    watched.score([f"Отдам котёнка, {number}" for number in range(1536)])
    time.sleep(SIX_HOURS + 2)  # and they are those of the week before
    assert metrics.query(f'last_over_time(ALERTS{{alertname=~"{"|".join(WATCHED)}"}}[6s])') == []

    silence(watched)
    refuse_scores(watched)
    watched.score([f"Сдаю квартиру, 2 спальни, у моря, {number} евро" for number in range(768)])
    watched.wait_for(DRIFT)
    assert OVERLOAD not in watched.firing()
    with overload(watched.server):
        watched.wait_for(OVERLOAD)
    watched.wait_for(STUCK)
    watched.wait_for(SILENT)
    assert not watched.firing() & {GONE, DOWN}

    damage(watched)
    watched.wait_for(GONE)
    assert DOWN not in watched.firing()
    watched.server.process.terminate()
    watched.wait_for(DOWN)


def silence(watched: Watched) -> None:
    """Let the source answer nothing that can be read."""
    watched.page.status = 500


def refuse_scores(watched: Watched) -> None:
    """Store messages whose scores the database does not take, as the backfill would write them."""
    watched.query(
        "CREATE TRIGGER refuse BEFORE INSERT ON scores BEGIN SELECT RAISE(FAIL, 'refused'); END"
    )
    messages = [{"source": "chat", "id": str(number), "text": str(number)} for number in range(9)]
    answer = watched.server.client.post("/messages", json=messages, params={"wait": "0"})
    assert answer.status_code == 200


class overload:  # noqa: N801
    """Send more requests at once during the block than are admitted."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._clients = ThreadPoolExecutor(8)

    def __enter__(self) -> None:
        for client in range(8):
            self._clients.submit(self._post, client)

    def _post(self, client: int) -> None:
        turn = 0
        while not self._ended.is_set() and turn < 10_000:
            texts = [f"Продам диван, {client} {turn} {number}, " * 20 for number in range(64)]
            answer = self._server.client.post("/score", json={"texts": texts})
            assert answer.status_code in (200, 503)
            time.sleep(0.02)
            turn += 1

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._clients.shutdown()


def damage(watched: Watched) -> None:
    """Overwrite the store's file."""
    watched.query("PRAGMA wal_checkpoint(TRUNCATE)")
    with watched.database.open("r+b") as file:
        file.write(b"\xff" * watched.database.stat().st_size)
    wait_for(watched.server, "/readyz", lambda answer: answer.status_code == 503)
