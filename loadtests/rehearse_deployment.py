"""`python -m loadtests.rehearse_deployment`: the services of deploy/compose.yaml as processes."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError
from loadtests.harness import postgres
from loadtests.harness.processes import BENTOML, ROOT, bento, free_port, running
from loadtests.harness.prometheus import (
    Prometheus,
    Query,
    is_installed,
    panel_queries,
    prometheus,
    rule_queries,
)

COMPOSE = ROOT / "deploy" / "compose.yaml"
LABEL_STUDIO = ROOT / ".venv-labelstudio" / "ready"
WITHIN = 60.0  # seconds for a message to be seen in the feed, or in Prometheus
LABEL_STUDIO_WITHIN = 600.0  # it creates its database at its first start
NEEDS_A_WEEK = "week_before"  # in the names of recorded metrics
TEXT = "Rehearsal: flat to let, two rooms, near the sea"


class RehearsalFailed(FeedsieveError):
    """A message was not seen, or there is no such service."""


class Rehearsal:
    """The services that run, what they answered, and those that were left out."""

    def __init__(self, folder: Path, skip: set[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.services = list(yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"])
        if unknown := skip - set(self.services):
            known = ", ".join(self.services)
            raise RehearsalFailed(f"no service {', '.join(sorted(unknown))}; there are {known}")
        self.skip = skip

    def run(self) -> None:
        """Start all services, post a message, look for it, evaluate all queries, end them."""
        with ExitStack() as stack:
            database = self._postgres(stack)
            service = stack.enter_context(self._service(database))
            print(f"feedsieve: {service}", flush=True)
            self._mlflow(stack)
            self._label_studio(stack)
            self._left_out("grafana", "this script starts none; its queries are evaluated below")
            identifier = _post(service)
            _wait_for_feed(service, identifier)
            if not is_installed() or "prometheus" in self.skip:
                self._left_out("prometheus", "not installed: apt-get install prometheus")
                return
            target = {"feedsieve": service.removeprefix("http://")}
            metrics = stack.enter_context(prometheus(self.folder / "prometheus", target))
            print(f"prometheus: {metrics.url}", flush=True)
            metrics.wait_for('up{job="feedsieve"} == 1', WITHIN)  # what is before is no increase
            _use(service)
            metrics.wait_for('feedsieve_request_seconds_count{endpoint="/messages"} > 0', WITHIN)
            print("the message is in the feed and in Prometheus")
            evaluate(metrics, service)

    def _postgres(self, stack: ExitStack) -> str:
        """Start PostgreSQL if it is installed; return the location of the message store."""
        if "postgres" in self.skip or (programs := postgres.programs()) is None:
            self._left_out("postgres", "not installed: apt-get install postgresql; using SQLite")
            return str(self.folder / "messages.db")
        # Not in the folder, which an unprivileged user may not be able to enter.
        server = stack.enter_context(postgres.temporary(programs))
        server.run("CREATE DATABASE feedsieve")
        print("postgres: started", flush=True)
        return server.url("feedsieve")

    @contextmanager
    def _service(self, database: str) -> Iterator[str]:
        """Serve during the block, with a folder as a live source; yield the URL."""
        source = self.folder / "exports"
        source.mkdir(exist_ok=True)
        row = {"id": "1", "text": "Отдам котёнка", "date": "2026-01-01T00:00:00Z"}
        (source / "chat.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        environment = {"FEEDSIEVE_DB": database, "FEEDSIEVE_SOURCES": str(source)}
        with bento(self.folder / "feedsieve.log", environment) as server:
            yield server.url

    def _mlflow(self, stack: ExitStack) -> None:
        program = BENTOML.with_name("mlflow")
        if "mlflow" in self.skip or not program.exists():
            return self._left_out("mlflow", "not installed: make mlflow")
        url = f"http://127.0.0.1:{free_port()}"
        command: list[str | Path] = [program, "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", url.rpartition(":")[2]]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = self.folder / "mlflow.log"
        stack.enter_context(running(command, f"{url}/health", log, own, 120))
        print(f"mlflow: {url}", flush=True)
        return None

    def _label_studio(self, stack: ExitStack) -> None:
        if "label-studio" in self.skip or not LABEL_STUDIO.exists():
            return self._left_out("label-studio", "not installed: make labelstudio")
        url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "labeling.server", "--port", url.rpartition(":")[2]]
        command += ["--data", str(self.folder / "labelstudio")]
        log = self.folder / "label-studio.log"
        stack.enter_context(running(command, f"{url}/health", log, {}, LABEL_STUDIO_WITHIN))
        print(f"label-studio: {url}", flush=True)
        return None

    def _left_out(self, service: str, reason: str) -> None:
        reason = "--skip" if service in self.skip else reason
        print(f"{service}: left out ({reason})", flush=True)


def _post(url: str) -> str:
    """Post a message and return its identifier."""
    message = {"source": "rehearsal", "id": "1", "text": TEXT}
    deadline = time.monotonic() + WITHIN
    answer = httpx.post(f"{url}/messages", json=message, timeout=60)
    while answer.status_code == 503 and time.monotonic() < deadline:  # the store is being opened
        time.sleep(0.2)
        answer = httpx.post(f"{url}/messages", json=message, timeout=60)
    if answer.is_error:
        raise RehearsalFailed(f"POST /messages: {answer.status_code} {answer.text}")
    return str(answer.json()[0]["id"])


def _wait_for_feed(url: str, identifier: str) -> None:
    deadline = time.monotonic() + WITHIN
    seen: Any = []
    while time.monotonic() < deadline:
        answer = httpx.get(f"{url}/feed?limit=100", timeout=30)
        seen = answer.json()["items"] if answer.is_success else []
        if identifier in [item["id"] for item in seen]:
            return
        time.sleep(0.2)
    raise RehearsalFailed(f"the feed has {len(seen)} messages, but not the one that was posted")


def _use(url: str) -> None:
    """Send some of each kind of request, for a few scrapes."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(3):
            client.get("/feed")
            client.post("/score", json={"texts": [f"{TEXT} {number}", TEXT]})
            time.sleep(1)


def evaluate(metrics: Prometheus, url: str) -> None:
    """Evaluate all panels and rules. Raises QueryFailed for a panel without series.

    Panels of metrics that the service does not have yet, or of a week ago, need not have any.
    """
    page = httpx.get(f"{url}/metrics", timeout=30).text
    names = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    panels, empty = panel_queries(), []
    for query in panels:
        if _is_expected(query, names):
            metrics.wait_for(query.expression, WITHIN)
        elif not metrics.query(query.expression):
            empty.append(query)
    for query in rule_queries():
        metrics.query(query.expression)
    print(f"{len(panels)} panel queries and {len(rule_queries())} rules were evaluated")
    for query in empty:
        print(f"no series yet: {query.place}: {query.expression}")


def _is_expected(query: Query, names: set[str]) -> bool:
    """Return whether the service has all metrics of the query, and has had them long enough."""
    scraped = {name for name in query.metrics if ":" not in name}
    is_known = all(any(name.startswith(known) for known in names) for name in scraped)
    return is_known and NEEDS_A_WEEK not in query.expression


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.rehearse_deployment",
        description="Start the services of deploy/compose.yaml as processes, without an engine:"
        " post one message, see it in the feed and in Prometheus, evaluate the query of each panel"
        " and each alert, end all of them. Services that are not installed are left out.",
    )
    add = parser.add_argument
    add("--work", type=Path, required=True, metavar="DIR", help="folder for logs and data")
    add("--skip", action="append", default=[], metavar="SERVICE", help="leave this one out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the services, too
    return run_command(
        "loadtests.rehearse_deployment", lambda: Rehearsal(options.work, set(options.skip)).run()
    )


if __name__ == "__main__":
    sys.exit(main())
