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
from train.behaviour.cases import direction_pairs, functionality_examples, invariance_pairs
from train.behaviour.changes import CHANGES
from train.behaviour.checks import EXAMPLES, all_texts, run
from train.behaviour.requirements import REAL, REQUIREMENTS
from train.data.near_duplicates import near_duplicate_groups

LONG = 30  # characters; shorter texts may coincide by chance
PHONE = re.compile(r"\+357\s*(\d\d)")
HANDLE = re.compile(r"@(.)")


class Truthful:
    """A scorer that gives every message the right score."""

    model = "feedsieve-classifier:1"
    threshold = 0.5

    def __init__(self) -> None:
        self.scored: list[str] = []
        self.scores = dict.fromkeys(chain(*chain(*invariance_pairs().values())), 0.6)
        for before, after in chain(*direction_pairs().values()):
            self.scores |= {before: 0.9, after: 0.2}
        for message in chain(*functionality_examples().values()):
            self.scores[message.text] = 0.9 if message.label else 0.1

    def score(self, texts, progress=None):
        self.scored += texts
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
    def test_number_of_texts_keeps_scoring_fast(self):
        assert len(all_texts()) < 400

    def test_every_change_applies_to_messages(self):
        same = invariance_pairs()
        assert list(same) == list(CHANGES)
        assert all(len(pairs) >= 4 for pairs in same.values())
        assert len({pair.before for pairs in same.values() for pair in pairs}) >= 12
        assert all(pair.before != pair.after for pair in chain(*same.values()))

    def test_each_offer_has_every_directional_change(self):
        less = direction_pairs()
        offers = [[pair.before for pair in pairs] for pairs in less.values()]
        assert all(texts == offers[0] for texts in offers)
        assert len(offers[0]) >= 10

    def test_kinds_have_six_distinct_messages_or_more(self):
        known = functionality_examples()
        assert len(known) >= 12
        assert all(6 <= len(messages) <= 10 for messages in known.values())
        texts = [message.text for message in chain(*known.values())]
        assert len(texts) == len(set(texts))
        assert {message.label for message in chain(*known.values())} == {0, 1}

    def test_phone_numbers_and_handles_are_impossible(self):
        text = "\n".join(all_texts())
        assert set(PHONE.findall(text)) == {"00"}
        assert set(HANDLE.findall(text)) == {"_"}

    def test_no_text_copies_the_sample_corpus(self):
        assert copies([message.text for message in compose(4000, 7)]) == []

    def test_no_text_copies_the_real_corpus(self, corpus):
        assert copies(corpus["msg"].tolist()) == []


def copies(texts: list[str]) -> list[str]:
    """Return the longer cases that are near-duplicates of one of `texts`."""
    cases = [text for text in all_texts() if len(text) >= LONG]
    groups = near_duplicate_groups([*texts, *cases], progress=False)
    known = set(groups[: len(texts)])
    return [case for case, group in zip(cases, groups[len(texts) :], strict=True) if group in known]


class TestRequirements:
    @pytest.mark.parametrize("name", REQUIREMENTS)
    def test_each_check_has_requirements(self, name):
        checks = run(Truthful()).checks
        assert sorted(check.name for check in checks) == sorted(REQUIREMENTS[name])
        for check in checks:
            assert check.reached.keys() == REQUIREMENTS[name][check.name].keys()

    def test_checks_without_requirements_are_shown(self):
        outcome = run(Inverted(), {"sale": {"accuracy": 0.5}})
        assert [check.name for check in outcome.failed] == ["sale"]
        assert len(outcome.checks) == len(REAL)
        assert "accuracy 0.000 (≥ 0.50)" in str(outcome)
        assert "FAIL  functionality  house" not in str(outcome)


class TestChecks:
    def test_perfect_scorer_passes(self):
        scorer = Truthful()
        outcome = run(scorer)
        assert outcome.passed
        assert f"{len(REAL)} of {len(REAL)} checks passed" in str(outcome)
        assert sorted(scorer.scored) == sorted(set(all_texts()))
        assert outcome.texts == len(scorer.scored)

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_constant_scorer_fails_direction(self, requirements):
        known = functionality_examples()
        assert failed(Constant(), requirements) == {
            "invariance": set(),
            "direction": set(direction_pairs()),
            "functionality": {name for name in known if not known[name][0].label},
        }

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_scorer_by_length_fails_each_kind(self, requirements):
        names = failed(Lengthy(), requirements)
        assert "white space" in names["invariance"]
        assert names["direction"] >= {"in Paphos", "in Larnaca", "in Nicosia"}
        assert names["functionality"] >= {"sale", "seeker in Russian"}

    @pytest.mark.parametrize("requirements", REQUIREMENTS.values(), ids=REQUIREMENTS)
    def test_inverted_scorer_fails_all_but_invariance(self, requirements):
        assert failed(Inverted(), requirements) == {
            "invariance": set(),
            "direction": set(direction_pairs()),
            "functionality": set(functionality_examples()),
        }
        assert check_of(Inverted(), "sale").reached == {"accuracy": 0.0}

    @pytest.mark.parametrize("name", CHANGES)
    def test_one_change_that_moves_scores_fails_one_check(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.95 for pair in invariance_pairs()[name]}
        assert failed(scorer) == {"invariance": {name}, "direction": set(), "functionality": set()}

    @pytest.mark.parametrize("name", direction_pairs())
    def test_offers_that_do_not_fall_fail_one_check(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.9 for pair in direction_pairs()[name][:2]}
        assert failed(scorer) == {"invariance": set(), "direction": {name}, "functionality": set()}
        check = check_of(scorer, name)
        assert check.reached["share that falls"] == 0.8
        assert [(case.score_before, case.score) for case in check.failures] == [(0.9, 0.9)] * 2

    @pytest.mark.parametrize("name", functionality_examples())
    def test_misclassified_kind_fails_one_check(self, name):
        scorer = Truthful()
        wrong = [message.text for message in functionality_examples()[name][:3]]
        scorer.scores |= {text: 1 - scorer.scores[text] for text in wrong}
        assert failed(scorer) == {"invariance": set(), "direction": set(), "functionality": {name}}
        assert [case.text for case in check_of(scorer, name).failures] == wrong

    def test_large_mean_fails_without_large_moves(self):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.75 for pair in invariance_pairs()["name added"]}
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] == pytest.approx(0.15)
        assert len(check.failures) == EXAMPLES

    def test_large_move_fails_with_a_small_mean(self):
        scorer = Truthful()
        pair = invariance_pairs()["name added"][0]
        scorer.scores[pair.after] = 0.1
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] < REAL["name added"]["mean move"]
        assert [(case.text_before, case.text) for case in check.failures] == [pair]

    def test_threshold_decides_on_functionality(self):
        scorer = Truthful()
        scorer.threshold = 0.9
        assert check_of(scorer, "house").passed
        scorer.threshold = 0.901
        assert check_of(scorer, "house").reached == {"accuracy": 0.0}


class TestCommand:
    @pytest.fixture(autouse=True)
    def fresh_settings(self):
        settings.cache_clear()

    def test_command_prints_and_writes_the_outcome(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Truthful())
        assert main(["--out", str(tmp_path / "behaviour.json")]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("feedsieve-classifier:1, threshold 0.500\n")
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        assert (table["model"], table["passed"]) == ("feedsieve-classifier:1", True)
        assert {check["name"] for check in table["checks"]} == set(REAL)

    def test_failed_check_is_explained(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Inverted())
        assert main(["--out", str(tmp_path / "behaviour.json")]) == 1
        text = functionality_examples()["sale"][0].text
        assert f"  0.900  {text}" in capsys.readouterr().out
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        [sale] = [check for check in table["checks"] if check["name"] == "sale"]
        assert not table["passed"] and not sale["passed"]
        assert {failure["text"] for failure in sale["failures"]} >= {text}

    def test_unwritable_file_is_reported(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Truthful())
        assert main(["--out", str(tmp_path / "none" / "behaviour.json")]) == 1
        assert "behaviour.json: No such file" in capsys.readouterr().err

    def test_missing_model_is_reported(self, tmp_path):
        done = behave("--model", "feedsieve-classifier:none", home=tmp_path)
        assert done.returncode == 1
        assert "behave: the model store has no feedsieve-classifier:none" in done.stderr
        assert "`make train`" in done.stderr
        assert "Traceback" not in done.stderr


class TestSampleModel:
    def test_sample_model_meets_its_requirements(self, trained, tmp_path):
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
