"""What readers and integrators do: `make loadtest`, or `locust -f loadtests/locustfile.py`.

Locust lets users be chosen by their class: `locust -f loadtests/locustfile.py Reader` is the
scenario of readers alone, and without a name both come.
"""

import random
import sys
from itertools import count
from typing import Any

from locust import HttpUser, between, events, task

from loadtests.thresholds import Thresholds

MOST_TEXTS = 2000  # taken from the feed to be scored again
_texts: list[str] = []
_numbers = count()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    parser.add_argument(
        "--slack", type=float, default=1.0, help="how many times slower the machine may be"
    )


@events.quitting.add_listener
def check_thresholds(environment: Any, **_said: Any) -> None:
    """Fail the run, and say on stderr which thresholds do not hold."""
    classes = {user.__name__ for user in environment.user_classes}
    scenario = "mixed" if len(classes) > 1 else min(classes).lower()
    routes = {name: entry for (name, _method), entry in environment.stats.entries.items()}
    broken = Thresholds(scenario, environment.parsed_options.slack).broken(
        routes, environment.stats.total
    )
    for line in broken:
        print(f"threshold broken: {line}", file=sys.stderr)
    environment.process_exit_code = int(bool(broken))


def fresh_texts(how_many: int) -> list[str]:
    """Return texts of the feed, each different from all before: no cache can help."""
    return [f"{next(_numbers)} {random.choice(_texts)}"[:10_000] for _ in range(how_many)]


class Reader(HttpUser):
    """Opens the feed, turns a page or two, and looks at a message."""

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
    """Scores messages as they come, and now and then some that have piled up."""

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
        self.client.post("/score", json={"texts": fresh_texts(1)}, name="/score (1 text)")

    @task(1)
    def score_many(self) -> None:
        self.client.post("/score", json={"texts": fresh_texts(16)}, name="/score (16 texts)")
