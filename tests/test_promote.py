"""Champion and challenger, with real trainings of a tiny encoder, tracked in MLflow."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving import ROOT
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from train import registry
from train.challenge import compare
from train.registry import CHALLENGER, CHAMPION, FORMER

RANDOM = np.random.default_rng(7)
LABELS = (RANDOM.random(400) < 0.3).astype(int)
GROUPS = np.arange(400) // 2
GOOD = np.clip(LABELS * 0.5 + RANDOM.random(400) * 0.6, 0, 1)
POOR = np.clip(LABELS * 0.2 + RANDOM.random(400) * 0.8, 0, 1)


class TestCompare:
    def test_the_better_one_is_better_for_certain(self):
        for difference in compare(LABELS, GROUPS, GOOD, POOR, (0.5, 0.5), 7).values():
            assert 0 < difference.low < difference.mean < difference.high

    def test_turned_round_it_is_worse(self):
        ours = compare(LABELS, GROUPS, GOOD, POOR, (0.5, 0.4), 7)
        theirs = compare(LABELS, GROUPS, POOR, GOOD, (0.4, 0.5), 7)
        for name, difference in ours.items():
            assert theirs[name].mean == pytest.approx(-difference.mean)
            assert theirs[name].low == pytest.approx(-difference.high)

    def test_the_same_is_the_same(self):
        for difference in compare(LABELS, GROUPS, GOOD, GOOD, (0.5, 0.5), 7).values():
            assert (difference.low, difference.mean, difference.high) == (0, 0, 0)

    def test_copies_tell_no_more_than_one_of_them(self):
        """Each message ten times, in one group, leaves the interval as wide as it was."""
        one = compare(LABELS, np.arange(400), GOOD, POOR, (0.5, 0.5), 7)["F1"]
        ten = [np.repeat(values, 10) for values in (LABELS, np.arange(400), GOOD, POOR)]
        copied = compare(*ten, (0.5, 0.5), 7)["F1"]
        assert copied.high - copied.low == pytest.approx(one.high - one.low, rel=0.1)


class Team:
    """Somebody who trains and promotes, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "BENTOML_HOME": str(folder / "bentoml"),
            "FEEDSIEVE_CACHE": str(folder / "cache"),
            "FEEDSIEVE_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
        )

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
    """Where version 1 is champion, and version 2, of the same data, challenges it."""
    team = Team(trained_once)
    done = team.promote()
    assert done.returncode == 0, done.stderr
    assert "champion: none yet" in done.stdout
    assert "version 1 is champion now" in done.stdout
    team.train()
    return trained_once


@pytest.fixture
def team(with_champion, tmp_path, monkeypatch) -> Team:
    """A copy of it, that a test may do with as it likes."""
    folder = tmp_path / "team"
    shutil.copytree(with_champion, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return Team(folder)


def number(alias: str) -> int | None:
    version = registry.behind(alias)
    return version.number if version else None


@pytest.mark.lab
class TestPromote:
    def test_an_equal_challenger_becomes_champion_and_may_be_rolled_back(self, team):
        done = team.promote()
        assert done.returncode == 0, done.stdout + done.stderr
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

    def test_a_worse_challenger_is_refused(self, team):
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
        assert "REFUSED  average precision: -" in done.stdout
        assert "the champion stays what it is" in done.stdout
        assert number(CHAMPION) == 1
        table = (team.folder / "new" / "table.md").read_text()
        assert "| **refused** | average precision | -" in table
        assert table.endswith("Refused: the champion stays what it is.\n")

    @pytest.mark.parametrize(
        ("limit", "said"), [("--largest", "REFUSED  size"), ("--slowest", "REFUSED  latency")]
    )
    def test_limits(self, team, limit, said):
        done = team.promote(limit, 0.001)
        assert done.returncode == 1
        assert said in done.stdout
        assert number(CHAMPION) == 1

    def test_labels_of_other_messages_decide_nothing(self, team):
        write(compose(200, 99), team.folder / "other")
        done = team.promote("--data", team.folder / "other" / LABELED)
        assert done.returncode == 1
        assert "were judged by both" in done.stdout

    def test_a_pair_that_is_not_in_the_store(self, team):
        shutil.rmtree(team.folder / "bentoml")
        done = team.promote()
        assert done.returncode == 1
        assert "promote: the model store has no feedsieve-classifier:" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_champion_that_is_not_in_the_store(self, team):
        tag = registry.behind(CHAMPION).pair.classifier_tag
        shutil.rmtree(team.folder / "bentoml" / "models" / tag.replace(":", "/"))
        done = team.promote()
        assert done.returncode == 1
        assert f"promote: the champion, version 1, {tag}, is not in this machine's" in done.stderr
        assert "Traceback" not in done.stderr
        assert number(CHAMPION) == 1

    def test_nothing_to_promote_or_to_go_back_to(self, team, tmp_path):
        (team.folder / "mlflow.db").unlink()
        assert "there is no challenger" in team.promote().stderr
        assert "no former champion" in team.promote("--rollback").stderr
        assert "there is no champion" in team.promote("--champion").stderr
