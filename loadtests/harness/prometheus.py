"""A Prometheus with the rules of deploy/, and the queries of its dashboard."""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from feedsieve.errors import FeedsieveError
from loadtests.harness.processes import ROOT, free_port, running

CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
RULES = ROOT / "deploy" / "prometheus" / "feedsieve.rules.yml"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
INTERVAL = "1s"  # between two scrapes; an operator's 15 s would make a rehearsal long
RATE_INTERVAL = "30s"  # in place of Grafana's $__rate_interval
# Lengths of time in an expression: windows, offsets, and hours that are written as seconds.
_LENGTHS = re.compile(r"(?<=\[)(\d+)([smhdw])(?=\])|(?<=offset )(\d+)([smhdw])|\b(3600)\b")
_MILLISECONDS = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_METRIC = re.compile(r"\b(?:feedsieve|process)_[a-z_]+|\bfeedsieve:[a-z0-9_:]+")


class QueryFailed(FeedsieveError):
    """Prometheus rejected a query; the message says why."""


class Query(NamedTuple):
    """A query of a panel or a rule: where it stands, and what is asked."""

    place: str
    expression: str

    @property
    def metrics(self) -> set[str]:
        """The names of metrics in the expression, recorded ones too."""
        return set(_METRIC.findall(self.expression))


def panel_queries() -> list[Query]:
    """Return the queries of all panels, as Grafana would send them."""
    queries = []
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
                queries.append(Query(panel["title"], expression))
    return queries


def rules() -> Any:
    """Return the content of the file of rules."""
    return yaml.safe_load(RULES.read_text(encoding="utf-8"))


def faster_rules(factors: Mapping[str, float]) -> Any:
    """Return the rules with times divided by a group's factor; their conditions are the same.

    Times are how long a condition holds (`for`), windows and offsets of queries, and ages in hours.
    """
    content = rules()
    for group in content["groups"]:
        factor = factors[group["name"]]
        for rule in group["rules"]:
            rule["expr"] = _LENGTHS.sub(partial(_divided, factor), rule["expr"])
            if wait := re.fullmatch(r"(\d+)([smhdw])", rule.get("for", "")):
                rule["for"] = _duration(wait[1], wait[2], factor)
    return content


def _divided(factor: float, match: re.Match[str]) -> str:
    window, window_unit, offset, offset_unit, hour = match.groups()
    if hour:
        return f"{int(hour) / factor:g}"
    return _duration(window or offset, window_unit or offset_unit, factor)


def _duration(number: str, unit: str, factor: float) -> str:
    return f"{round(int(number) * _MILLISECONDS[unit] / factor)}ms"


def rule_queries() -> list[Query]:
    """Return the expressions of all alerts and recording rules."""
    return [
        Query(rule.get("alert") or rule["record"], rule["expr"])
        for group in rules()["groups"]
        for rule in group["rules"]
    ]


class Prometheus:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30)

    def query(self, expression: str) -> list[Any]:
        """Return the series of an instant query, none if there are none. Raises QueryFailed."""
        answer = self._client.post("/api/v1/query", data={"query": expression}).json()
        if answer["status"] != "success":
            raise QueryFailed(f"{answer['error']}: {expression}")
        result = answer["data"]["result"]
        return result if isinstance(result, list) else [result]

    def wait_for(self, expression: str, within: float) -> list[Any]:
        """Return the series of a query once it has any. Raises QueryFailed after some seconds."""
        deadline = time.monotonic() + within
        while not (found := self.query(expression)):
            if time.monotonic() > deadline:
                raise QueryFailed(f"no series within {within:.0f} seconds: {expression}")
            time.sleep(0.2)
        return found

    def has(self, metric: str) -> bool:
        """Return whether any series of this name was scraped or recorded."""
        return bool(self.query(f"last_over_time({metric}[5m])"))


def is_installed() -> bool:
    """Return whether Prometheus and promtool can be started."""
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], content: Any | None = None
) -> Iterator[Prometheus]:
    """Run a Prometheus in `folder` during the block. Raises ServerTimeout.

    It has the configuration of deploy/, but for `targets`, an address by job, and its intervals.
    `content` takes the place of the file of rules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), INTERVAL)
    config["global"]["scrape_timeout"] = INTERVAL
    for job in config["scrape_configs"]:
        target = {"prometheus": address, **targets}[job["job_name"]]
        job["static_configs"] = [{"targets": [target]}]
    content = rules() if content is None else content
    for group in content["groups"]:
        group["interval"] = INTERVAL
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / RULES.name).write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    url = f"http://{address}"
    with running(command, f"{url}/-/ready", folder / "prometheus.log", {}, 60):
        yield Prometheus(url)
