"""What readers and integrators do: `locust -f loadtests/locustfile.py`, or `make loadtest`."""

import random
from itertools import count

from locust import HttpUser, between, task

MOST_TEXTS = 2000  # taken from the feed to be scored again
_texts: list[str] = []
_numbers = count()


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
