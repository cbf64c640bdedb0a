import json
import os
import re
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from serving import ROOT

from data.generate import compose
from feedsieve.settings import settings
from train.behave import main
from train.behaviour.cases import less_of_an_offer, must_be_known, same_meaning
from train.behaviour.changes import CHANGES
from train.behaviour.checks import EXAMPLES, all_texts, run
from train.behaviour.requirements import REAL, REQUIREMENTS
from train.duplicates import near_duplicate_groups

LONG = 30  # characters; two people may well write the same few words
PHONE = re.compile(r"\+357\s*(\d\d)")
HANDLE = re.compile(r"@(.)")


class Truthful:
    """A scorer that knows every message and what it must score."""

    model = "feedsieve-classifier:1"
    threshold = 0.5

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.scores = dict.fromkeys(chain(*chain(*same_meaning().values())), 0.6)
        for before, after in chain(*less_of_an_offer().values()):
            self.scores |= {before: 0.9, after: 0.2}
        for message in chain(*must_be_known().values()):
            self.scores[message.text] = 0.9 if message.label else 0.1

    def score(self, texts, progress=None):
        self.asked += texts
        if progress:
            progress(len(texts))
        return np.array([self.scores[text] for text in texts])


class Constant(Truthful):
    def score(self, texts, progress=None):
        return np.full(len(texts), 0.7)


class Lengthy(Truthful):
    def score(self, texts, progress=None):
        return np.array([min(len(text) / 100, 1) for text in texts])


class Inverted(Truthful):
    def score(self, texts, progress=None):
        return 1 - super().score(texts, progress)


def failed(scorer, requirements=REAL) -> dict[str, set[str]]:
    """Return the names of the checks that fail, by kind."""
    names: dict[str, set[str]] = {"invariance": set(), "direction": set(), "functionality": set()}
    for check in run(scorer, requirements).failed:
        names[check.kind].add(check.name)
    return names


def check_of(scorer, name, requirements=REAL):
    [check] = [check for check in run(scorer, requirements).checks if check.name == name]
    return check


class TestCases:
    def test_scoring_them_takes_seconds(self):
        assert len(all_texts()) < 400

    def test_messages_of_both_labels_are_changed_in_every_way(self):
        same = same_meaning()
        assert list(same) == list(CHANGES)
        assert all(len(pairs) >= 4 for pairs in same.values())
        assert len({pair.before for pairs in same.values() for pair in pairs}) >= 12
        assert all(pair.before != pair.after for pair in chain(*same.values()))

    def test_each_offer_is_made_into_everything_else(self):
        less = less_of_an_offer()
        offers = [[pair.before for pair in pairs] for pairs in less.values()]
        assert all(texts == offers[0] for texts in offers)
        assert len(offers[0]) >= 10

    def test_six_messages_or_more_of_each_kind_and_none_twice(self):
        known = must_be_known()
        assert len(known) >= 12
        assert all(6 <= len(messages) <= 10 for messages in known.values())
        texts = [message.text for message in chain(*known.values())]
        assert len(texts) == len(set(texts))
        assert {message.label for message in chain(*known.values())} == {0, 1}

    def test_nobody_can_be_called(self):
        text = "\n".join(all_texts())
        assert set(PHONE.findall(text)) == {"00"}
        assert set(HANDLE.findall(text)) == {"_"}

    def test_none_is_of_the_sample_corpus(self):
        assert copies([message.text for message in compose(4000, 7)]) == []

    def test_none_is_of_the_real_one(self, corpus):
        assert copies(corpus["msg"].tolist()) == []


def copies(texts: list[str]) -> list[str]:
    """Return the cases, of some length, that are near-duplicates of one of `texts`."""
    cases = [text for text in all_texts() if len(text) >= LONG]
    groups = near_duplicate_groups([*texts, *cases], progress=False)
    known = set(groups[: len(texts)])
    return [case for case, group in zip(cases, groups[len(texts) :], strict=True) if group in known]


class TestRequirements:
    @pytest.mark.parametrize("name", REQUIREMENTS)
    def test_there_is_one_for_each_check_and_no_other(self, name):
        checks = run(Truthful()).checks
        assert sorted(check.name for check in checks) == sorted(REQUIREMENTS[name])
        for check in checks:
            assert check.reached.keys() == REQUIREMENTS[name][check.name].keys()

    def test_what_is_not_required_is_shown_all_the_same(self):
        outcome = run(Inverted(), {"sale": {"accuracy": 0.5}})
        assert [check.name for check in outcome.failed] == ["sale"]
        assert len(outcome.checks) == len(REAL)
        assert "accuracy 0.000 (≥ 0.50)" in str(outcome)
        assert "FAIL  functionality  house" not in str(outcome)


class TestChecks:
    def test_a_scorer_that_knows_everything_passes(self):
        scorer = Truthful()
        outcome = run(scorer)
        assert outcome.passed
        assert f"{len(REAL)} of {len(REAL)} checks passed" in str(outcome)
        assert sorted(scorer.asked) == sorted(set(all_texts()))
        assert outcome.texts == len(scorer.asked)

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_one_score_for_all(self, requirements):
        known = must_be_known()
        assert failed(Constant(), requirements) == {
            "invariance": set(),
            "direction": set(less_of_an_offer()),
            "functionality": {name for name in known if not known[name][0].label},
        }

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_length(self, requirements):
        names = failed(Lengthy(), requirements)
        assert "white space" in names["invariance"]
        assert names["direction"] >= {"in Paphos", "in Larnaca", "in Nicosia"}
        assert names["functionality"] >= {"sale", "seeker in Russian"}

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_the_opposite(self, requirements):
        assert failed(Inverted(), requirements) == {
            "invariance": set(),
            "direction": set(less_of_an_offer()),
            "functionality": set(must_be_known()),
        }
        assert check_of(Inverted(), "sale").reached == {"accuracy": 0.0}

    @pytest.mark.parametrize("name", CHANGES)
    def test_a_change_that_matters_fails_alone(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.95 for pair in same_meaning()[name]}
        assert failed(scorer) == {"invariance": {name}, "direction": set(), "functionality": set()}

    @pytest.mark.parametrize("name", less_of_an_offer())
    def test_offers_that_do_not_fall_fail_alone(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.9 for pair in less_of_an_offer()[name][:2]}
        assert failed(scorer) == {"invariance": set(), "direction": {name}, "functionality": set()}
        check = check_of(scorer, name)
        assert check.reached["share that falls"] == 0.8
        assert [(case.score_before, case.score) for case in check.failures] == [(0.9, 0.9)] * 2

    @pytest.mark.parametrize("name", must_be_known())
    def test_a_kind_that_is_not_known_fails_alone(self, name):
        scorer = Truthful()
        wrong = [message.text for message in must_be_known()[name][:3]]
        scorer.scores |= {text: 1 - scorer.scores[text] for text in wrong}
        assert failed(scorer) == {"invariance": set(), "direction": set(), "functionality": {name}}
        assert [case.text for case in check_of(scorer, name).failures] == wrong

    def test_a_mean_may_be_too_large_though_no_move_is(self):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.75 for pair in same_meaning()["name added"]}
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] == pytest.approx(0.15)
        assert len(check.failures) == EXAMPLES

    def test_the_largest_move_may_be_too_large_though_the_mean_is_not(self):
        scorer = Truthful()
        pair = same_meaning()["name added"][0]
        scorer.scores[pair.after] = 0.1
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] < REAL["name added"]["mean move"]
        assert [(case.text_before, case.text) for case in check.failures] == [pair]

    def test_the_threshold_decides(self):
        scorer = Truthful()
        scorer.threshold = 0.9
        assert check_of(scorer, "house").passed
        scorer.threshold = 0.901
        assert check_of(scorer, "house").reached == {"accuracy": 0.0}


class TestCommand:
    @pytest.fixture(autouse=True)
    def fresh_settings(self):
        settings.cache_clear()

    def test_table_and_file(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Truthful())
        assert main(["--out", str(tmp_path / "behaviour.json")]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("feedsieve-classifier:1, threshold 0.500\n")
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        assert (table["model"], table["passed"]) == ("feedsieve-classifier:1", True)
        assert {check["name"] for check in table["checks"]} == set(REAL)

    def test_a_check_that_fails_is_explained(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Inverted())
        assert main(["--out", str(tmp_path / "behaviour.json")]) == 1
        text = must_be_known()["sale"][0].text
        assert f"  0.900  {text}" in capsys.readouterr().out
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        [sale] = [check for check in table["checks"] if check["name"] == "sale"]
        assert not table["passed"] and not sale["passed"]
        assert {failure["text"] for failure in sale["failures"]} >= {text}

    def test_a_file_that_cannot_be_written(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Truthful())
        assert main(["--out", str(tmp_path / "none" / "behaviour.json")]) == 1
        assert "behaviour.json: No such file" in capsys.readouterr().err

    def test_no_model(self, tmp_path):
        done = behave("--model", "feedsieve-classifier:none", home=tmp_path)
        assert done.returncode == 1
        assert "behave: the model store has no feedsieve-classifier:none" in done.stderr
        assert "`make train`" in done.stderr
        assert "Traceback" not in done.stderr


class TestSampleModel:
    def test_it_does_what_is_required(self, trained, tmp_path):
        done = behave(
            "--requirements", "sample", "--out", tmp_path / "behaviour.json", home=trained
        )
        assert done.returncode == 0, done.stdout + done.stderr
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        assert table["passed"]
        assert table["model"].startswith("feedsieve-classifier:")


def behave(*arguments, home) -> subprocess.CompletedProcess[str]:
    """Run the command on the model store in `home`."""
    return subprocess.run(
        [sys.executable, "-m", "train.behave", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
    )
