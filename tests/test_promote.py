"""Promotion, with a tiny encoder trained and tracked in MLflow."""

import csv
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from python_process import run_python
from serving import ROOT
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from feedsieve.store.shadows import ShadowPair
from feedsieve.store.store import MessageStore
from train import promote
from train.tracking import registry
from train.tracking.challenger import compare
from train.tracking.registry import CHALLENGER, CHAMPION, FORMER
from train.tracking.shadow_trial import shadow_findings

RANDOM = np.random.default_rng(7)
LABELS = (RANDOM.random(400) < 0.3).astype(int)
GROUPS = np.arange(400) // 2
GOOD = np.clip(LABELS * 0.5 + RANDOM.random(400) * 0.6, 0, 1)
POOR = np.clip(LABELS * 0.2 + RANDOM.random(400) * 0.8, 0, 1)


class TestCompare:
    def test_better_scores_are_significantly_better(self):
        for difference in compare(LABELS, GROUPS, GOOD, POOR, (0.5, 0.5), 7).values():
            assert 0 < difference.low < difference.mean < difference.high

    def test_swapped_arguments_negate_the_difference(self):
        ours = compare(LABELS, GROUPS, GOOD, POOR, (0.5, 0.4), 7)
        theirs = compare(LABELS, GROUPS, POOR, GOOD, (0.4, 0.5), 7)
        for name, difference in ours.items():
            assert theirs[name].mean == pytest.approx(-difference.mean)
            assert theirs[name].low == pytest.approx(-difference.high)

    def test_equal_scores_have_no_difference(self):
        for difference in compare(LABELS, GROUPS, GOOD, GOOD, (0.5, 0.5), 7).values():
            assert (difference.low, difference.mean, difference.high) == (0, 0, 0)

    def test_copies_in_a_group_do_not_narrow_the_interval(self):
        """Each message occurs ten times, in one group."""
        one = compare(LABELS, np.arange(400), GOOD, POOR, (0.5, 0.5), 7)["F1"]
        ten = [np.repeat(values, 10) for values in (LABELS, np.arange(400), GOOD, POOR)]
        copied = compare(*ten, (0.5, 0.5), 7)["F1"]
        assert copied.high - copied.low == pytest.approx(one.high - one.low, rel=0.1)


def pairs(count: int) -> list[ShadowPair]:
    """Return pairs of rising scores; the decisions of the first text differ."""
    now = datetime.now(UTC)
    return [
        ShadowPair(str(number), number / count, number / count, False, number == 0, now)
        for number in range(count)
    ]


class TestShadow:
    @pytest.fixture
    def examine(self, tmp_path):
        """Examine a challenger that was compared on 20 texts, by these options."""
        store = MessageStore.open(tmp_path / "store.db")
        store.save_pairs("champion:1", "challenger:2", pairs(20))

        def call(*arguments: str, champion: str | None = "champion:1"):
            options = promote._parser().parse_args(["--shadow", *arguments])
            return shadow_findings(store, "challenger:2", champion, options)

        yield call
        store.close()

    def test_too_few_texts_reject_and_are_counted(self, examine):
        [finding] = examine("--shadow-texts", "50")
        assert not finding.passed
        assert "20 of 50 live texts" in finding.result and "30 are missing" in finding.result
        [finding] = examine(champion="champion:0")
        assert not finding.passed and "1,000 are missing" in finding.result

    def test_agreement_and_ranks_decide(self, examine):
        agreement, rank = examine("--shadow-texts", "20")
        assert agreement.passed and agreement.result.startswith("95.0% (")
        assert rank.passed and rank.result.startswith("1.000 (")
        agreement, rank = examine("--shadow-texts", "20", "--shadow-agreement", "96")
        assert (agreement.passed, rank.passed) == (False, True)
        agreement, rank = examine("--shadow-texts", "20", "--shadow-rank", "1.1")
        assert (agreement.passed, rank.passed) == (True, False)

    def test_first_champion_has_nothing_to_compare_with(self, examine):
        [finding] = examine(champion=None)
        assert finding.passed

    def test_more_texts_than_the_store_keeps_are_refused(self, examine, capsys):
        with pytest.raises(SystemExit):
            examine("--shadow-texts", "10001")
        assert "is not from 1 to 10000" in capsys.readouterr().err


class Team:
    """Runs commands of training in a folder with its own stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "BENTOML_HOME": str(folder / "bentoml"),
            "FEEDSIEVE_CACHE": str(folder / "cache"),
            "FEEDSIEVE_DB": str(folder / "messages.db"),
            "FEEDSIEVE_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run_python("-m", module, *arguments, cwd=self.folder, env=self._environment)

    def train(self, data: object = LABELED) -> None:
        done = self.run("train", "--data", data, "--encoder", "tiny")
        assert done.returncode == 0, done.stderr

    def promote(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run(
            "train.promote", "--data", LABELED, "--behave", "sample", "--slower", 20, *arguments
        )


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    write(compose(400, 7), folder)
    save_tiny_bert(folder / "tiny")
    Team(folder).train()
    return folder


@pytest.fixture(scope="module")
def with_champion(trained_once) -> Path:
    """A folder whose version 1 is champion, and version 2, of the same data, challenger."""
    team = Team(trained_once)
    done = team.promote()
    assert done.returncode == 0, done.stderr
    assert "champion: none yet" in done.stdout
    assert "version 1 is champion now" in done.stdout
    team.train()
    return trained_once


@pytest.fixture
def team(with_champion, tmp_path, monkeypatch) -> Team:
    """A copy of that folder for one test."""
    folder = tmp_path / "team"
    shutil.copytree(with_champion, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return Team(folder)


def number(alias: str) -> int | None:
    version = registry.behind(alias)
    return version.number if version else None


@pytest.mark.lab
class TestPromote:
    def test_equal_challenger_becomes_champion_and_can_be_rolled_back(self, team):
        tags = [registry.behind(name).pair.classifier_tag for name in (CHAMPION, CHALLENGER)]
        store = MessageStore.open(team.folder / "messages.db")
        store.save_pairs(*tags, pairs(20))
        store.close()
        done = team.promote("--shadow", "--shadow-texts", 20)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"ok +shadow agreement: 95.0%", done.stdout)
        assert re.search(r"ok +average precision: \+0\.00 points", done.stdout)
        assert re.search(r"ok +latency: .* of the champion's", done.stdout)
        assert re.search(r"ok +behaviour: \d+ of 34 checks pass", done.stdout)
        assert "version 2 is champion now" in done.stdout
        assert (number(CHAMPION), number(FORMER)) == (2, 1)
        assert "is the newest and champion already" in team.promote().stdout
        assert team.promote("--rollback").returncode == 0
        assert (number(CHAMPION), number(FORMER), number(CHALLENGER)) == (1, 2, 2)
        shown = team.promote("--champion").stdout.strip()
        assert shown == registry.behind(CHAMPION).pair.classifier_tag

    def test_worse_challenger_is_rejected(self, team):
        with (team.folder / LABELED).open(newline="") as file:
            header, *rows = csv.reader(file)
        column = header.index("label")
        for row in rows[::3]:
            row[column] = str(1 - int(row[column]))
        with (team.folder / "wrong.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        team.train("wrong.csv")
        done = team.promote("--out", "new/table.md")
        assert done.returncode == 1
        assert "REJECTED  average precision: -" in done.stdout
        assert "the champion is unchanged" in done.stdout
        assert number(CHAMPION) == 1
        table = (team.folder / "new" / "table.md").read_text()
        assert "| **rejected** | average precision | -" in table
        assert table.endswith("Rejected: the champion is unchanged.\n")

    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            (["--largest", 0.001], "REJECTED  size"),
            (["--slowest", 0.001, "--shadow"], "REJECTED  latency"),
        ],
    )
    def test_limits_reject_the_challenger(self, team, arguments, printed):
        done = team.promote(*arguments)
        assert done.returncode == 1
        assert printed in done.stdout
        is_missing = "REJECTED  shadow: 0 of 1,000 live texts" in done.stdout
        assert is_missing == ("--shadow" in arguments)
        assert number(CHAMPION) == 1

    def test_labels_of_other_messages_reject_the_challenger(self, team):
        write(compose(200, 99), team.folder / "other")
        done = team.promote("--data", team.folder / "other" / LABELED)
        assert done.returncode == 1
        assert "have out-of-fold scores of both models" in done.stdout

    def test_challenger_missing_from_the_store_is_reported(self, team):
        shutil.rmtree(team.folder / "bentoml")
        done = team.promote()
        assert done.returncode == 1
        assert "promote: the model store has no feedsieve-classifier:" in done.stderr
        assert "Traceback" not in done.stderr

    def test_champion_missing_from_the_store_is_reported(self, team):
        tag = registry.behind(CHAMPION).pair.classifier_tag
        shutil.rmtree(team.folder / "bentoml" / "models" / tag.replace(":", "/"))
        done = team.promote()
        assert done.returncode == 1
        assert f"promote: the champion, version 1, {tag}, is not in this machine's" in done.stderr
        assert "Traceback" not in done.stderr
        assert number(CHAMPION) == 1

    def test_missing_versions_are_reported(self, team, tmp_path):
        (team.folder / "mlflow.db").unlink()
        assert "there is no challenger" in team.promote().stderr
        assert "no former champion" in team.promote("--rollback").stderr
        assert "there is no champion" in team.promote("--champion").stderr
