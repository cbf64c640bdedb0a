"""Prometheus' rules and the dashboard, tested with promtool and by the rehearsal."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from serving import ROOT

from loadtests.harness.prometheus import (
    RULES,
    faster_rules,
    is_installed,
    panel_queries,
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
    "feedsieve_watch_ended",
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


class TestFasterRules:
    def test_times_alone_are_divided(self):
        groups = faster_rules({"feedsieve": 60, "feedsieve-drift": 3600})["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        fast = {rule.get("alert") or rule["record"]: rule for rule in every}
        assert fast["FeedsieveOverloaded"]["for"] == "5000ms"
        assert "[5000ms]" in fast["FeedsieveOverloaded"]["expr"]
        assert fast["FeedsieveNoNewMessages"]["expr"].strip().endswith("> 6 * 60")
        assert "> 50" in fast["FeedsieveQueueStuck"]["expr"]
        week_before = fast["feedsieve:new_scores:week_before"]["expr"]
        assert "[168000ms] offset 6000ms" in week_before
        assert "feedsieve:new_scores:6h >= 300" in fast["FeedsieveScoreDrift"]["expr"]


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
