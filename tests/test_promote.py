"""Promotion, with a tiny encoder trained and tracked in MLflow."""

import csv
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from python_process import run_python
from serving import ROOT
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from feedsieve.store.shadows import ShadowPair
from feedsieve.store.store import MessageStore
from train import promote
from train.evaluation.non_inferiority import Outcome
from train.tracking import mlflow_run, registry
from train.tracking.registry import CHALLENGER, CHAMPION, FORMER
from train.tracking.shadow_trial import shadow_findings


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
        assert finding.outcome is Outcome.REJECTED
        assert "20 of 50 live texts" in finding.result and "30 are missing" in finding.result
        [finding] = examine(champion="champion:0")
        assert finding.outcome is Outcome.REJECTED and "1,000 are missing" in finding.result

    def test_agreement_and_ranks_decide(self, examine):
        agreement, rank = examine("--shadow-texts", "20")
        assert agreement.outcome is Outcome.PASSED and agreement.result.startswith("95.0% (")
        assert rank.outcome is Outcome.PASSED and rank.result.startswith("1.000 (")
        agreement, rank = examine("--shadow-texts", "20", "--shadow-agreement", "96")
        assert (agreement.outcome, rank.outcome) == (Outcome.REJECTED, Outcome.PASSED)
        agreement, rank = examine("--shadow-texts", "20", "--shadow-rank", "1.1")
        assert (agreement.outcome, rank.outcome) == (Outcome.PASSED, Outcome.REJECTED)

    def test_first_champion_has_nothing_to_compare_with(self, examine):
        [finding] = examine(champion=None)
        assert finding.outcome is Outcome.PASSED

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
    assert re.search(r"ok +average precision above LinearSVC's: \+\d", done.stdout)
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
        assert re.search(r"ok +F1: \+0\.00 points, at least \+0\.00 .* the same folds", done.stdout)
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
        assert "REJECTED   average precision: -" in done.stdout
        assert "other folds" in done.stdout
        assert "the champion is unchanged" in done.stdout
        assert number(CHAMPION) == 1
        table = (team.folder / "new" / "table.md").read_text()
        assert "| **rejected** | average precision | -" in table
        assert table.endswith("Rejected: the champion is unchanged.\n")

    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            (["--largest", 0.001], "REJECTED   size"),
            (["--slowest", 0.001, "--shadow"], "REJECTED   latency"),
        ],
    )
    def test_limits_reject_the_challenger(self, team, arguments, printed):
        done = team.promote(*arguments)
        assert done.returncode == 1
        assert printed in done.stdout
        is_missing = "REJECTED   shadow: 0 of 1,000 live texts" in done.stdout
        assert is_missing == ("--shadow" in arguments)
        assert number(CHAMPION) == 1

    def test_labels_of_other_messages_leave_it_undecided(self, team):
        write(compose(200, 99), team.folder / "other")
        other = ("--data", team.folder / "other" / LABELED)
        done = team.promote(*other)
        assert done.returncode == 3
        assert "have out-of-fold scores of both models" in done.stdout
        assert "undecided: the champion is unchanged" in done.stdout
        assert number(CHAMPION) == 1
        assert team.promote(*other, "--accept-undecided").returncode == 0
        assert number(CHAMPION) == 2

    def test_first_champion_has_to_be_better_than_linear_svc(self, team):
        """Scores without any relation to the labels take the place of the challenger's."""
        version = registry.behind(CHALLENGER)
        held_out = team.folder / "reports" / "held_out.csv"
        table = pd.read_csv(held_out, dtype=str)
        table["score"] = np.random.default_rng(7).random(len(table))
        table.to_csv(team.folder / "held_out.csv", index=False)
        client = mlflow_run.connect()
        client.delete_registered_model_alias(registry.NAME, CHAMPION)
        with mlflow_run.run("train", {}) as run:
            run.log_files(team.folder / "held_out.csv")
            registry.register(run, version.pair, version.stored)
        done = team.promote()
        assert done.returncode == 1
        assert "REJECTED   average precision above LinearSVC's: -" in done.stdout
        assert number(CHAMPION) is None

    def test_missing_models_are_fetched_or_reported(self, team):
        shutil.rmtree(team.folder / "bentoml")
        assert team.promote().returncode == 0
        shutil.rmtree(team.folder / "bentoml")
        for version in registry.versions():
            mlflow_run.connect().delete_model_version_tag(
                registry.NAME, str(version.number), "encoder_run"
            )
        registry.move(CHAMPION, 1)
        done = team.promote()
        assert done.returncode == 1
        assert "has no feedsieve-classifier:" in done.stderr
        assert "`bentoml models import" in done.stderr
        assert "Traceback" not in done.stderr

    def test_missing_versions_are_reported(self, team, tmp_path):
        (team.folder / "mlflow.db").unlink()
        assert "there is no challenger" in team.promote().stderr
        assert "no former champion" in team.promote("--rollback").stderr
        assert "there is no champion" in team.promote("--champion").stderr
