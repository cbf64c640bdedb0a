"""Locust scenarios. `locust -f loadtests/locustfile.py Reader` runs only the readers."""

import random
import sys
from itertools import count
from typing import Any

from locust import HttpUser, between, events, task

from loadtests.harness.thresholds import violations

MOST_TEXTS = 2000  # taken from the feed as material for new texts
_texts: list[str] = []
_numbers = count()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    parser.add_argument("--slack", type=float, default=1.0, help="factor for every threshold")


@events.quitting.add_listener
def check_thresholds(environment: Any, **_event: Any) -> None:
    """Print violated thresholds to stderr, and fail if there are any."""
    classes = {user.__name__ for user in environment.user_classes}
    scenario = "mixed" if len(classes) > 1 else min(classes).lower()
    routes = {name: entry for (name, _method), entry in environment.stats.entries.items()}
    slack = environment.parsed_options.slack
    lines = violations(scenario, routes, environment.stats.total, slack)
    for line in lines:
        print(f"threshold broken: {line}", file=sys.stderr)
    environment.process_exit_code = int(bool(lines))


def new_texts(how_many: int) -> list[str]:
    """Return texts of the feed with a number in front, so that no cache can help."""
    return [f"{next(_numbers)} {random.choice(_texts)}"[:10_000] for _ in range(how_many)]


class Reader(HttpUser):
    """Opens the feed, turns up to two pages, and opens a message."""

    weight = 3
    wait_time = between(0.2, 1.0)

    @task
    def read(self) -> None:
        page = self.client.get("/feed?limit=20", name="/feed").json()
        for _ in range(random.randint(0, 2)):
            if not page["next"]:
                break
            query = {"limit": 20, "cursor": page["next"]}
            page = self.client.get("/feed", params=query, name="/feed (next pages)").json()
        if page["items"]:
            chosen = random.choice(page["items"])["id"]
            self.client.get(f"/messages/{chosen}", name="/messages/{identifier}")

    @task
    def read_in_a_browser(self) -> None:
        self.client.get("/feed", headers={"Accept": "text/html"}, name="/feed (page)")

    @task
    def draw(self) -> None:
        self.client.get("/messages?limit=10", name="/messages")


class Integrator(HttpUser):
    """Scores messages one at a time, and sometimes 16 together."""

    weight = 2
    wait_time = between(0.05, 0.3)

    def on_start(self) -> None:
        query: dict[str, str | int] = {"limit": 100}
        while len(_texts) < MOST_TEXTS:
            page = self.client.get("/feed", params=query, name="/feed (100, to begin)").json()
            _texts.extend(item["text"] for item in page["items"])
            if not page["next"]:
                break
            query["cursor"] = page["next"]
        if not _texts:
            _texts.append("the feed is empty")

    @task(9)
    def score_one(self) -> None:
        self.client.post("/score", json={"texts": new_texts(1)}, name="/score (1 text)")

    @task(1)
    def score_many(self) -> None:
        self.client.post("/score", json={"texts": new_texts(16)}, name="/score (16 texts)")
