"""Deployments in the message store, and `feedsieve deploy`."""

import json
import shutil
import sys
import tomllib
from datetime import UTC, datetime
from importlib import import_module

import pytest
from model_copies import CLASSIFIER, ENCODER, copy_pair, newest
from serving import ROOT
from stores import location, new_location, store

from feedsieve.__main__ import main
from feedsieve.settings import settings
from feedsieve.store.deployments import DeploymentOutcome, NothingToGoBackTo, peek_wanted
from feedsieve.store.shadows import ShadowOutcome, ShadowPair
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]

REGISTRY = "registry_of_a_test"


class TestDeployments:
    def test_last_deployment_is_wanted(self, store):
        assert store.wanted() is None
        store.deploy("model:one", "anna@laptop")
        deployed = store.deploy("model:two", "boris@laptop")
        assert store.wanted() == deployed
        assert (deployed.tag, deployed.who) == ("model:two", "boris@laptop")
        assert [one.tag for one in store.deployments()] == ["model:two", "model:one"]

    def test_rollback_goes_back_and_forward(self, store):
        with pytest.raises(NothingToGoBackTo):
            store.roll_back("anna")
        store.deploy("model:one", "anna")
        store.deploy("model:two", "anna")
        store.deploy("model:two", "anna")
        assert store.roll_back("anna").tag == "model:one"
        assert store.roll_back("anna").tag == "model:two"

    def test_rollback_of_the_first_leaves_each_server_its_own(self, store):
        store.deploy("model:one", "anna")
        assert store.roll_back("anna").tag is None
        assert store.roll_back("anna").tag == "model:one"

    def test_server_has_one_outcome_of_the_last_deployment(self, store):
        first = store.deploy("model:one", "anna")
        refused = DeploymentOutcome("a:1", "refused", "model:zero", "it is bad", datetime.now(UTC))
        done = DeploymentOutcome("a:1", "done", "model:one", None, datetime.now(UTC))
        store.save_outcome(first.number, refused)
        store.save_outcome(first.number, done)
        assert store.deployment_outcomes(first.number) == [done]
        store.deploy("model:two", "anna")
        assert store.deployment_outcomes(first.number) == []

    def test_server_may_peek_before_it_opens_the_store(self, location, tmp_path):
        assert peek_wanted(location, None) is None
        opened = MessageStore.open(location)
        assert peek_wanted(location, None) is None
        deployed = opened.deploy("model:one", "anna")
        assert peek_wanted(location, None) == deployed
        opened.close()
        (tmp_path / "empty.db").touch()  # without the table, as stores of earlier versions
        assert peek_wanted(tmp_path / "empty.db", None) is None
        assert peek_wanted(tmp_path, None) is None  # a folder
        assert peek_wanted(tmp_path / "new.db", None) is None
        assert not (tmp_path / "new.db").exists()
        assert peek_wanted("postgresql://nobody@127.0.0.1:1/x", None) is None


@pytest.fixture(scope="module")
def models(small_home, tmp_path_factory):
    """A BENTOML_HOME, and the tags of the two classifiers in it."""
    home = tmp_path_factory.mktemp("models")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    return home, f"{CLASSIFIER}:{newest(home)}", copy_pair(home, "second")


class TestCommand:
    @pytest.fixture
    def deploy(self, models, tmp_path, monkeypatch, capsys):
        """Run `feedsieve deploy` on a store of its own; return exit code, output and errors."""
        monkeypatch.setenv("BENTOML_HOME", str(models[0]))
        monkeypatch.setenv("FEEDSIEVE_DB", str(tmp_path / "store.db"))
        settings.cache_clear()

        def call(*arguments: str) -> tuple[int, str, str]:
            return main(["deploy", *arguments]), *capsys.readouterr()

        yield call
        settings.cache_clear()

    def test_exact_tag_is_wanted_and_the_one_before_is_named(self, deploy, models, tmp_path):
        _home, first, second = models
        code, output, _errors = deploy(first)
        assert code == 0
        assert f"wanted: {first}, since " in output
        assert "before: what each server's FEEDSIEVE_MODEL names" in output
        changed = json.loads(deploy(second, "--json")[1])
        assert (changed["wanted"], changed["before"], changed["number"]) == (second, first, 2)
        assert "@" in changed["who"] and changed["servers"] == []
        assert f"wanted: {first}, since " in deploy("--rollback")[1]
        with_servers = MessageStore.open(tmp_path / "store.db")
        answer = DeploymentOutcome("a:1", "refused", second, "it is bad", datetime.now(UTC))
        with_servers.save_outcome(3, answer)
        _code, output, _errors = deploy()
        assert f"a:1 serves {second}; refused: it is bad" in output
        assert "follow" not in output
        assert "wanted: what each server's" in deploy("--reset")[1]

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (["feedsieve-classifier:none"], 1, "train.promote --fetch feedsieve-classifier:none`"),
            (["feedsieve-classifier:latest", "--elsewhere"], 1, "pass an exact tag, NAME:VERSION"),
            (["--rollback"], 1, "no other model was deployed before"),
            (["feedsieve-classifier:latest", "--rollback"], 2, "pass one of"),
            (["--shadow", "feedsieve-classifier:none"], 1, "add --elsewhere"),
            (["--shadow", "feedsieve-classifier:latest", "--no-shadow"], 2, "pass one of"),
            (["--share", "0.5"], 2, "--share needs --shadow"),
            (["--shadow", "feedsieve-classifier:latest", "--share", "0"], 2, "0<x<=1"),
            (["--shadow-report"], 1, "no text is compared; `feedsieve deploy --shadow TAG`"),
        ],
    )
    def test_wrong_request_changes_nothing(self, deploy, arguments, code, says):
        answered, _output, errors = deploy(*arguments)
        assert answered == code
        assert says in errors
        assert errors.count("\n") == (1 if code == 1 else 4)
        state = json.loads(deploy("--json")[1])
        assert state["number"] is state["shadow"] is None

    def test_shadow_is_shown_with_what_servers_made_of_it(self, deploy, models, tmp_path):
        _home, first, second = models
        code, output, _errors = deploy("--shadow", second, "--share", "0.25")
        assert code == 0
        assert "nothing was deployed" in output and "servers follow" in output
        assert f"shadow: {second}, 0.25 of the texts, since " in output
        store = MessageStore.open(tmp_path / "store.db")
        for server, reason in (("a:1", None), ("b:1", "it is bad")):
            store.save_shadow_outcome(1, ShadowOutcome(server, reason, datetime.now(UTC)))
        _code, output, _errors = deploy(first)
        assert "a:1 scores with it\nb:1 does not score with it: it is bad\n" in output
        shown = json.loads(deploy("--json")[1])["shadow"]
        assert (shown["tag"], shown["share"], len(shown["servers"])) == (second, 0.25, 2)
        code, _output, errors = deploy("--shadow", first)
        assert code == 1 and "its shadow has to be another model" in errors
        assert "it is in service now, so that there is nothing to compare" in deploy(second)[1]
        assert "shadow" not in deploy("--no-shadow")[1].splitlines()[-2]
        assert json.loads(deploy("--shadow", first, "--json")[1])["shadow"]["share"] == 0.1

    def test_report_says_how_the_shadow_differs(self, deploy, models, tmp_path):
        _home, first, second = models
        deploy("--shadow", second)
        code, _output, errors = deploy("--shadow-report")
        assert code == 1 and f"no text is compared with the shadow {second} yet" in errors
        now = datetime.now(UTC)
        rows = [(n / 40, n / 40 + 0.1, n >= 20, n >= 10, now) for n in range(36)]
        pairs = [ShadowPair(str(number), *row) for number, row in enumerate(rows)]
        MessageStore.open(tmp_path / "store.db").save_pairs(first, second, pairs)
        code, output, _errors = deploy("--shadow-report")
        assert code == 0
        assert [" ".join(line.split()) for line in output.splitlines()[:11]] == [
            f"shadow: {second}",
            f"served: {first}",
            f"texts: 36, {now.isoformat(' ', 'minutes')} to {now.isoformat(' ', 'minutes')}",
            "agreement: 72.2% (56.0% to 84.2%)",
            "positive: 72.2% by the shadow, 44.4% by the served model:"
            " +27.8 points (+10.5 to +42.1)",
            "positive by one: 10 by the shadow alone, 0 by the served model alone",
            "shift of scores: +0.100 (+0.100 to +0.100)",
            "difference: 0.100 in the mean, 90th percentile 0.100",
            "rank correlation: 1.000 (1.000 to 1.000), Spearman's",
            "In parentheses are 95 % confidence intervals.",
            "",
        ]
        lowest = "0.000 to 0.075 4 0.038 0.138 100.0%"
        assert " ".join(output.splitlines()[12].split()) == lowest
        deploy("--no-shadow")
        report = json.loads(deploy("--shadow-report", "--json")[1])  # of the last one
        assert (report["shadow"], report["texts"], len(report["deciles"])) == (second, 36, 10)
        assert report["agreement"]["value"] == pytest.approx(26 / 36)

    def test_encoder_is_no_model_to_deploy(self, deploy, models):
        code, _output, errors = deploy(f"{ENCODER}:second")
        assert code == 1
        assert "is no classifier" in errors

    def test_rollback_to_a_model_that_is_gone_is_refused(self, deploy, models):
        deploy("feedsieve-classifier:gone", "--elsewhere")
        deploy(models[1])
        code, _output, errors = deploy("--rollback")
        assert code == 1
        assert "has no feedsieve-classifier:gone" in errors
        assert json.loads(deploy("--json")[1])["wanted"] == models[1]
        assert json.loads(deploy("--rollback", "--elsewhere", "--json")[1])["before"] == models[1]

    def test_champion_is_that_of_the_registry(self, deploy, models, tmp_path, monkeypatch):
        """An installed package names the registry, so that the runtime does not know MLflow."""
        about = tmp_path / "registry-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Name: registry\nVersion: 1\n")
        (about / "entry_points.txt").write_text(
            f"[feedsieve.registry]\nchampion = {REGISTRY}:champion_tag\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / f"{REGISTRY}.py").write_text(
            f"def champion_tag(*, fetch): return {models[2]!r} if fetch else 'model:elsewhere'\n"
        )
        assert json.loads(deploy("champion", "--json")[1])["wanted"] == models[2]
        elsewhere = deploy("champion", "--elsewhere", "--json")[1]
        assert json.loads(elsewhere)["wanted"] == "model:elsewhere"
        monkeypatch.setitem(sys.modules, REGISTRY, None)  # as where MLflow is not installed
        code, _output, errors = deploy("champion")
        assert code == 1
        assert "`python -m train.promote --champion` prints there" in errors


def test_registry_of_training_is_named_by_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["feedsieve.registry"]["champion"].partition(":")
    assert callable(getattr(import_module(module), name))
