"""Latency of the feed and of single messages by the size of the store."""

import random
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from tqdm import tqdm

from feedsieve.scoring import model_store
from feedsieve.store.database import find_database, open_database
from feedsieve.store.feed import Cursor
from feedsieve.store.schema import messages, sources
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from loadtests.harness import page
from loadtests.harness.clients import Job, load
from loadtests.harness.messages import repeating
from loadtests.harness.plan import Plan, medians
from loadtests.harness.processes import Server, bento, memory

SIZES = (10_000, 100_000, 1_000_000)
CLIENTS = 32
PATHS = 1000  # drawn at random
ROWS_A_TRANSACTION = 10_000
EMPTY = "empty GET of an unconfigured Bento"


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures by size and route. Raises ModelNotFound, ServerTimeout, ProgramFailed."""
    model_store.find_pair(plan.model)
    sizes: dict[str, Any] = {}
    with bento(plan.folder / "empty.log", service="loadtests.peers.empty:Empty") as server:
        empty = _read_all(plan, server, {EMPTY: ["/empty"]})
    for size in plan.few_or_many((1_000, 10_000), SIZES):
        database = plan.folder / f"{size}.db"
        paths = _fill(plan, database, size)
        settings = {"FEEDSIEVE_MODEL": plan.model, "FEEDSIEVE_DB": str(database)}
        with bento(plan.folder / f"{size}.log", settings, ready="/feed") as server:
            routes = _read_all(plan, server, paths)
            sizes[str(size)] = {"routes": routes, "pss": memory(server.pid)[0]}
        database.unlink()
    return {"sizes": sizes} | empty


def _fill(plan: Plan, database: Path, size: int) -> dict[str, list[str]]:
    """Write a store of `size` messages with random scores; return paths to read, by route."""
    engine = open_database(find_database(database, None)[0])
    store = MessageStore(engine)
    store.start_model(plan.model, 0.5)
    rng, now = random.Random(7), datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(insert(sources), {"number": 1, "key": "name:chat", "seen_at": now})
    drawn = set(rng.sample(range(size), min(PATHS, size)))
    identifiers, pages = [], []
    stream = islice(enumerate(repeating(plan.chat, 0)), size)
    with tqdm(total=size, desc=f"{size:,} messages", unit="message", leave=False) as progress:
        while part := list(islice(stream, ROWS_A_TRANSACTION)):
            prints = [fingerprint(text) for _number, text in part]
            same = {"source": 1, "time": now, "seen_at": now}
            rows = [
                {"id": str(number), "source_id": str(number), "text": text, "fingerprint": key}
                | same
                for (number, text), key in zip(part, prints, strict=True)
            ]
            with engine.begin() as connection:
                connection.execute(insert(messages), rows)
            scores = [(key, rng.random()) for key in prints]
            store.save_scores(plan.model, scores)
            for (number, _text), (key, score) in zip(part, scores, strict=True):
                if number in drawn:
                    identifiers.append(f"/messages/{number}")
                    cursor = Cursor(plan.model, score, key, 1 + int(size * (1 - score))).encode()
                    pages.append(f"/feed?limit=10&cursor={cursor}")
            progress.update(len(part))
    store.mark_complete(plan.model)
    store.close()
    paths = {"/feed": ["/feed?limit=10"], "/feed, a page anywhere": pages}
    return paths | {"/messages/{identifier}": identifiers}


def _read_all(plan: Plan, server: Server, paths: dict[str, list[str]]) -> dict[str, Any]:
    """Return the figures by route; routes take turns."""
    runs: dict[str, list[dict[str, Any]]] = {route: [] for route in paths}
    seconds, warm_up = plan.few_or_many(2.0, 10.0), plan.few_or_many(1.0, 3.0)
    turns = list(paths) * plan.few_or_many(1, 3)
    for route in tqdm(turns, desc="feed", unit="load", leave=False):
        job = Job(server.url, seconds, warm_up, CLIENTS, paths=paths[route], run=plan.next_run())
        result = load(job)
        runs[route].append({"a_second": result.throughput} | result.figures)
    return {route: medians(records) for route, records in runs.items()}


def render(figures: dict[str, Any], images: Path) -> str:
    """Return the section and write its plot. Raises OSError."""
    sizes = figures["sizes"]
    p99: dict[str, dict[int, float]] = {}
    for size, measured in sizes.items():
        for route, one in measured["routes"].items():
            if one["p99"]:
                p99.setdefault(route, {})[int(size)] = one["p99"]
    page.lines(images / "feed.svg", p99, "messages", "p99, ms")
    empty = {"empty_name": EMPTY, "empty": figures[EMPTY]}
    return page.render("feed", clients=CLIENTS, sizes=sizes, **empty)
