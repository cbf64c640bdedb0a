"""Prometheus' rules and the dashboard, tested with promtool and with a real Prometheus."""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from live_servers import FeedServer, Page, run_server
from serving import ROOT, serve, wait_until_ready

from loadtests.harness.prometheus import (
    RULES,
    is_installed,
    panel_queries,
    prometheus,
    rule_queries,
    rules,
)

FOLDER = RULES.parent
TESTS = sorted(FOLDER.glob("*.tests.yml"))
ALERTS = [rule for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]
NAMES = [alert["alert"] for alert in ALERTS]
# A source has these once it was followed.
OF_SOURCES = {
    "feedsieve_watched_messages_total",
    "feedsieve_watch_failures_total",
    "feedsieve_watch_last_success_timestamp_seconds",
}
needs_prometheus = pytest.mark.skipif(
    not is_installed(), reason="no Prometheus is installed: apt-get install prometheus"
)


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class TestRules:
    @needs_prometheus
    def test_files_are_valid(self):
        assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
        assert "SUCCESS" in promtool("check", "rules", RULES.name)

    @needs_prometheus
    @pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
    def test_alerts_fire_on_what_they_watch(self, file):
        assert "SUCCESS" in promtool("test", "rules", file.name)

    def test_each_alert_is_fired_by_a_test(self):
        fired = {
            test["alertname"]
            for file in TESTS
            for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
            for test in case["alert_rule_test"]
            if test.get("exp_alerts")
        }
        assert fired == set(NAMES)

    @pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
    def test_each_alert_says_what_to_do(self, alert):
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "action", "runbook"}
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert anchor == alert["alert"].lower()
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
        assert alert["alert"] in headings

    def test_metrics_of_queries_are_served(self, small_server):
        page = small_server.client.get("/metrics").text
        served = set(re.findall(r"^([a-z_]+)(?:\{| )", page, re.M)) | OF_SOURCES
        recorded = {query.place for query in rule_queries() if ":" in query.place}
        for query in panel_queries() + rule_queries():
            assert query.metrics <= served | recorded, query


class TestDashboard:
    def test_panels_use_the_provisioned_datasource(self):
        provisioned = ROOT / "deploy" / "grafana" / "provisioning"
        [source] = yaml.safe_load(
            (provisioned / "datasources" / "prometheus.yaml").read_text(encoding="utf-8")
        )["datasources"]
        file = ROOT / "deploy" / "grafana" / "dashboards" / "feedsieve.json"
        panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
        shown = [panel for panel in panels if panel["type"] != "row"]
        assert all(panel["datasource"]["uid"] == source["uid"] for panel in shown)
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({panel["title"] for panel in shown}) == len(shown)


@needs_prometheus
def test_rehearsal_sees_a_message_in_the_feed_and_all_panels(small_home, tmp_path, monkeypatch):
    monkeypatch.setenv("BENTOML_HOME", str(small_home))
    command = [sys.executable, "-m", "loadtests.rehearse_deployment", "--work", tmp_path]
    skip = ["--skip", "mlflow", "--skip", "label-studio"]
    done = subprocess.run([*command, *skip], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the message is in the feed and in Prometheus" in done.stdout
    empty = re.findall(r"^no series yet: .*: (.*)$", done.stdout, re.M)
    assert all("week_before" in one for one in empty)


@pytest.fixture(scope="module")
def watched(small_environment, tmp_path_factory):
    """A server with one place for requests, the feed that it follows, and its Prometheus.

    Times of the alerts are shortened, their conditions are not.
    """
    folder, content = tmp_path_factory.mktemp("watched"), rules()
    for group in content["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            if rule.get("alert") == "FeedsieveSourceSilent":
                rule["expr"] = rule["expr"].replace("> 3600", "> 5")
    feeds = FeedServer()
    page = feeds.pages["/news"] = Page(
        b"<rss version='2.0'><channel><title>x</title></channel></rss>"
    )
    with run_server(feeds):
        own = {
            "FEEDSIEVE_WAITING": "1",
            "FEEDSIEVE_SOURCES": f"{feeds.url}/news",
            "FEEDSIEVE_FEED_INTERVAL": "1",
        }
        with serve(small_environment | own, folder) as server:
            wait_until_ready(server)
            target = {"feedsieve": server.url.removeprefix("http://")}
            with prometheus(folder / "prometheus", target, content) as metrics:
                metrics.wait_for("feedsieve_watch_last_success_timestamp_seconds", 60)
                yield server, page, metrics


def firing(name):
    return f'ALERTS{{alertname="{name}", alertstate="firing"}}'


@needs_prometheus
class TestRealAlerts:
    """In this order, of one server."""

    def test_nothing_fires_while_all_is_well(self, watched):
        _server, _page, metrics = watched
        time.sleep(2)
        assert metrics.query('ALERTS{alertname!="FeedsieveNoNewMessages"}') == []

    def test_overload_fires(self, watched):
        server, _page, metrics = watched
        body = {"texts": [f"text {number} " * 50 for number in range(256)]}

        def post(_number):
            return server.client.post("/score", json=body).status_code

        for _round in range(3):  # a rate needs two scrapes
            with ThreadPoolExecutor(8) as clients:
                assert 503 in list(clients.map(post, range(16)))
            time.sleep(1)
        assert metrics.wait_for(firing("FeedsieveOverloaded"), 20)

    def test_a_silent_source_fires(self, watched):
        _server, page, metrics = watched
        page.status = 500
        assert metrics.wait_for(firing("FeedsieveSourceSilent"), 30)

    def test_a_server_that_ended_fires(self, watched):
        server, _page, metrics = watched
        server.process.terminate()
        server.process.wait(30)
        assert metrics.wait_for(firing("FeedsieveDown"), 20)
