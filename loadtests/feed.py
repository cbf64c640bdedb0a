"""How fast the feed and single messages are read, by how many messages there are."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from sqlalchemy import insert
from tqdm import tqdm

from feedsieve import models
from feedsieve.cursor import Cursor
from feedsieve.database import find_database, open_database
from feedsieve.schema import messages
from feedsieve.store import MessageStore
from feedsieve.text import fingerprint
from loadtests import page, plots
from loadtests.clients import Job, load
from loadtests.medians import medians
from loadtests.messages import repeating
from loadtests.plan import Plan
from loadtests.server import Server, bento
from loadtests.watch import memory
from train.servers import NoAnswer

SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 10_000)
CLIENTS = 32
PATHS = 1000  # different ones that are drawn from
ROWS_AT_ONCE = 10_000
THRESHOLD = 0.5
SEED = 7
STORE_WITHIN = 120.0  # seconds, until the feed is there
EMPTY = "empty GET of an unconfigured Bento"


def measure(plan: Plan) -> dict[str, Any]:
    """Return latencies and requests a second by route and size. Raises NoModel, NoAnswer."""
    models.find_pair(plan.model)
    sizes = plan.few_or_many(QUICK_SIZES, SIZES)
    found: dict[str, Any] = {"sizes": {}}
    with bento(plan.folder / "empty.log", service="loadtests.empty:Empty") as server:
        found[EMPTY] = _read_all(plan, server, {EMPTY: ["/empty"]})[EMPTY]
    for size in sizes:
        database = plan.folder / f"{size}.db"
        paths = fill(plan, database, size)
        settings = {"FEEDSIEVE_MODEL": plan.model, "FEEDSIEVE_DB": str(database)}
        with bento(plan.folder / f"{size}.log", settings) as server:
            _wait_for_feed(server)
            routes = _read_all(plan, server, paths)
            found["sizes"][str(size)] = {"routes": routes, "pss": memory(server.pid)[0]}
        database.unlink()
    return found


def fill(plan: Plan, database: Path, size: int) -> dict[str, list[str]]:
    """Write a store of `size` messages, all scored; return paths to read it by, by route.

    Texts repeat as in the chat, and scores are drawn at random: reading them costs the same.
    """
    engine = open_database(find_database(database, None)[0])
    store = MessageStore(engine)
    store.start_model(plan.model, THRESHOLD)
    rng = random.Random(SEED)
    chosen = set(rng.sample(range(size), min(PATHS, size)))
    identifiers, cursors = [], []
    rows = _rows(plan, size)
    with tqdm(total=size, desc=f"{size:,} messages", unit="message", leave=False) as progress:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            with engine.begin() as connection:
                connection.execute(insert(messages), some)
            scored = [(row["fingerprint"], rng.random()) for row in some]
            store.save_scores(plan.model, scored)
            for row, (mark, score) in zip(some, scored, strict=True):
                if int(row["id"]) in chosen:
                    identifiers.append(f"/messages/{quote(row['id'])}")
                    cursor = Cursor(plan.model, score, mark, 1 + int(size * (1 - score)))
                    cursors.append(f"/feed?limit=10&cursor={cursor.encode()}")
            progress.update(len(some))
    store.mark_complete(plan.model)
    store.close()
    return {
        "/feed": ["/feed?limit=10"],
        "/feed, a page anywhere": cursors,
        "/messages/{identifier}": identifiers,
    }


def _rows(plan: Plan, size: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for number, text in enumerate(islice(repeating(plan.chat, 0), size)):
        yield {
            "id": str(number),
            "text": text,
            "channel": None,
            "time": now,
            "fingerprint": fingerprint(text),
            "seen_at": now,
        }


def _wait_for_feed(server: Server) -> None:
    deadline = time.monotonic() + STORE_WITHIN
    while time.monotonic() < deadline:
        try:
            with urlopen(f"{server.url}/feed", timeout=30):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise NoAnswer(f"{server.url}/feed gave no answer for {STORE_WITHIN:.0f} seconds")


def _read_all(plan: Plan, server: Server, paths: dict[str, list[str]]) -> dict[str, Any]:
    """Return the figures by route; routes take turns."""
    runs: dict[str, list[dict[str, Any]]] = {route: [] for route in paths}
    turns = list(paths.items()) * plan.few_or_many(1, 3)
    for route, some in tqdm(turns, desc="feed", unit="load", leave=False):
        runs[route].append(_read(plan, server, some))
    return {route: medians(records) for route, records in runs.items()}


def _read(plan: Plan, server: Server, paths: list[str]) -> dict[str, Any]:
    said = load(
        Job(
            url=server.url,
            seconds=plan.few_or_many(2.0, 10.0),
            warm_up=plan.few_or_many(1.0, 3.0),
            clients=CLIENTS,
            paths=paths,
            run=plan.next_run(),
        )
    )
    success = said.success
    return {
        "a_second": said.throughput,
        "p50": success and success.p50,
        "p99": success and success.p99,
        "failures": said.failures,
        "client_cpu": said.client_cpu,
    }


def section(found: dict[str, Any]) -> str:
    """Return the section of the page."""
    empty = found[EMPTY]
    smallest = next(iter(found["sizes"].values()))["routes"]
    rows = [[EMPTY, "–", *_cells(empty), "1.00", "–"]]
    for size, of_size in found["sizes"].items():
        for route, one in of_size["routes"].items():
            times = one["p99"] / smallest[route]["p99"] if one["p99"] else None
            rows.append(
                [
                    f"`GET {route}`",
                    f"{int(size):,}",
                    *_cells(one),
                    page.figure(one["a_second"] / empty["a_second"]),
                    page.figure(times),
                ]
            )
    return f"""## Feed

Stored scores, read by {CLIENTS} clients in a closed loop; medians of {len(empty["each"])} runs.
Texts repeat as in the chat. Pages anywhere follow cursors drawn at random, and so are messages.
Beside it is the empty GET of a FastAPI app in a Bento that nobody configured.

{page.table(HEAD, rows)}

After that the serving processes take, together (PSS), {_sizes(found)}.

![p99 by the number of messages](images/feed.svg)
"""


HEAD = (
    "read", "messages", "requests a second", "p50, ms", "p99, ms", "failed",
    "requests a second, to the empty GET's", "p99, to that of the smallest store",
)  # fmt: skip


def _sizes(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{page.mebibytes(of_size['pss'])} MiB with {int(size):,} messages"
        for size, of_size in found["sizes"].items()
    )


def _cells(one: dict[str, Any]) -> list[str]:
    failures = ", ".join(f"{count} × {status}" for status, count in one["failures"].items())
    return [*(page.figure(one[name]) for name in ("a_second", "p50", "p99")), failures or "0"]


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plot of p99 by the number of messages. Raises OSError."""
    routes = next(iter(found["sizes"].values()))["routes"]
    lines = {
        route: {
            int(size): of_size["routes"][route]["p99"]
            for size, of_size in found["sizes"].items()
            if of_size["routes"][route]["p99"]
        }
        for route in routes
    }
    plots.lines(folder / "feed.svg", lines, "messages", "p99, ms")
