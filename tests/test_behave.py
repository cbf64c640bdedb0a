import json
import os
import re
import subprocess
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from python_process import run_python
from serving import ROOT

from data.generate import compose
from feedsieve.settings import settings
from train.behave import main
from train.behaviour.changes import changes
from train.behaviour.checks import EXAMPLES, run
from train.behaviour.suite import SUITES, InvalidSuite, read_suite
from train.data.near_duplicates import near_duplicate_groups

LONG = 30  # characters; shorter texts may coincide by chance
PHONE = re.compile(r"\+357\s*(\d\d)")
HANDLE = re.compile(r"@(.)")
FLATS = read_suite("flats")
BY_NAME = {name: read_suite(name) for name in SUITES}


class Truthful:
    """A scorer that gives every message the right score."""

    model = "feedsieve-classifier:1"
    threshold = 0.5

    def __init__(self) -> None:
        self.scored: list[str] = []
        self.scores = dict.fromkeys(chain(*chain(*FLATS.invariance.values())), 0.6)
        for before, after in chain(*FLATS.direction.values()):
            self.scores |= {before: 0.9, after: 0.2}
        for message in chain(*FLATS.functionality.values()):
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


def failed(scorer, suite=FLATS) -> dict[str, set[str]]:
    """Return the names of the checks that fail, by kind."""
    names: dict[str, set[str]] = {"invariance": set(), "direction": set(), "functionality": set()}
    for check in run(scorer, suite).failed:
        names[check.kind].add(check.name)
    return names


def check_of(scorer, name, suite=FLATS):
    [check] = [check for check in run(scorer, suite).checks if check.name == name]
    return check


class TestCases:
    def test_number_of_texts_keeps_scoring_fast(self):
        assert len(FLATS.texts) < 400

    def test_every_change_applies_to_messages(self):
        same = FLATS.invariance
        assert list(same) == list(changes({}, {}, ""))
        assert all(len(pairs) >= 4 for pairs in same.values())
        assert len({pair.before for pairs in same.values() for pair in pairs}) >= 12
        assert all(pair.before != pair.after for pair in chain(*same.values()))

    def test_each_offer_has_every_directional_change(self):
        less = FLATS.direction
        offers = [[pair.before for pair in pairs] for pairs in less.values()]
        assert all(texts == offers[0] for texts in offers)
        assert len(offers[0]) >= 10

    def test_kinds_have_six_distinct_messages_or_more(self):
        known = FLATS.functionality
        assert len(known) >= 12
        assert all(6 <= len(messages) <= 10 for messages in known.values())
        texts = [message.text for message in chain(*known.values())]
        assert len(texts) == len(set(texts))
        assert {message.label for message in chain(*known.values())} == {0, 1}

    def test_phone_numbers_and_handles_are_impossible(self):
        text = "\n".join(FLATS.texts)
        assert set(PHONE.findall(text)) == {"00"}
        assert set(HANDLE.findall(text)) == {"_"}

    def test_no_text_copies_the_sample_corpus(self):
        assert copies([message.text for message in compose(4000, 7)]) == []

    def test_no_text_copies_the_real_corpus(self, corpus):
        assert copies(corpus["msg"].tolist()) == []


def copies(texts: list[str]) -> list[str]:
    """Return the longer cases that are near-duplicates of one of `texts`."""
    cases = [text for text in FLATS.texts if len(text) >= LONG]
    groups = near_duplicate_groups([*texts, *cases], progress=False)
    known = set(groups[: len(texts)])
    return [case for case, group in zip(cases, groups[len(texts) :], strict=True) if group in known]


CHAT = """
hashtags = "#счёт"
[required]
"lower case" = { "mean move" = 0.1 }
"question" = { accuracy = 0.9 }
"for sale" = { "mean fall" = 0.2 }
[[invariance]]
text = "Счёт пришёл, +49 30 123456"
[[direction]]
text = "Счёт не оплачен"
"for sale" = [["не оплачен", "продаётся"]]
[functionality.question]
label = 0
texts = ["Кто знает, когда счёт?"]
"""


class TestSuite:
    def write(self, folder, text):
        (folder / "chat.toml").write_text(text, encoding="utf-8")
        return str(folder / "chat.toml")

    def test_file_of_another_chat(self, tmp_path):
        suite = read_suite(self.write(tmp_path, CHAT))
        assert suite.name == "chat.toml"
        changed = {name: pair.after for name, [pair] in suite.invariance.items()}
        assert changed["another phone number"] == "Счёт пришёл, +49 30 890123"
        assert changed["hashtags added"].endswith("\n#счёт")
        assert "name added" not in changed
        assert suite.direction == {"for sale": [("Счёт не оплачен", "Счёт продаётся")]}
        assert suite.functionality == {"question": [("Кто знает, когда счёт?", 0)]}

    def test_extending_file_replaces_bounds_and_keeps_messages(self, tmp_path):
        self.write(tmp_path, CHAT)
        (tmp_path / "mild.toml").write_text(
            'extends = "chat.toml"\n[required]\nquestion = { accuracy = 0.1 }', encoding="utf-8"
        )
        suite = read_suite(str(tmp_path / "mild.toml"))
        assert suite.texts == read_suite(str(tmp_path / "chat.toml")).texts
        assert suite.required["question"] == {"accuracy": 0.1}
        assert suite.required["lower case"] == {"mean move": 0.1}

    def test_own_bounds_for_the_example(self, tmp_path):
        suite = read_suite(
            self.write(tmp_path, 'extends = "flats"\n[required]\nhouse = { accuracy = 0.1 }')
        )
        assert suite.texts == FLATS.texts
        assert suite.required == FLATS.required | {"house": {"accuracy": 0.1}}

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ('"question" =', '"qestion" =', "required: no check is called 'qestion'"),
            ("accuracy =", '"mean fall" =', "'question' is measured by accuracy, not by mean fall"),
            ("accuracy =", "acuracy =", "measured by accuracy, not by acuracy"),
            ('не оплачен",', 'нет",', "has no 'нет' to replace"),
            ("label = 0", "label = 2", "functionality.question.label"),
            ("texts =", "text =", "functionality.question.texts: Field required"),
            ("hashtags =", "hashtag =", "hashtag: Extra inputs are not permitted"),
            ('"for sale" = [', '"question" = [', "two checks are called 'question'"),
            (CHAT, "", "no messages"),
            (CHAT, "a = ", "Invalid value"),
            (CHAT, 'extends = "chat.toml"', "extends this file itself"),
            (CHAT, 'extends = "none.toml"', "none.toml: No such file"),
            (CHAT, "extends = 1", "must be the name of a file"),
        ],
    )
    def test_mistake_is_named(self, tmp_path, old, new, reason):
        with pytest.raises(InvalidSuite) as caught:
            read_suite(self.write(tmp_path, CHAT.replace(old, new)))
        assert "chat.toml" in str(caught.value) or "none.toml" in str(caught.value)
        assert reason in str(caught.value)

    def test_command_names_the_mistake(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            main(["--suite", self.write(tmp_path, "a = ")])
        assert "argument --suite:" in capsys.readouterr().err


class TestRequirements:
    @pytest.mark.parametrize("name", SUITES)
    def test_each_check_has_requirements(self, name):
        checks = run(Truthful(), FLATS).checks
        assert sorted(check.name for check in checks) == sorted(BY_NAME[name].required)
        for check in checks:
            assert check.reached.keys() == BY_NAME[name].required[check.name].keys()

    def test_checks_without_requirements_are_shown(self):
        outcome = run(Inverted(), replace(FLATS, required={"sale": {"accuracy": 0.5}}))
        assert [check.name for check in outcome.failed] == ["sale"]
        assert len(outcome.checks) == len(FLATS.required)
        assert "accuracy 0.000 (≥ 0.50)" in str(outcome)
        assert "FAIL  functionality  house" not in str(outcome)


class TestChecks:
    def test_perfect_scorer_passes(self):
        scorer = Truthful()
        outcome = run(scorer, FLATS)
        assert outcome.passed
        assert f"{len(FLATS.required)} of {len(FLATS.required)} checks passed" in str(outcome)
        assert sorted(scorer.scored) == sorted(set(FLATS.texts))
        assert outcome.texts == len(scorer.scored)

    @pytest.mark.parametrize("suite", BY_NAME.values(), ids=BY_NAME)
    def test_constant_scorer_fails_direction(self, suite):
        known = FLATS.functionality
        assert failed(Constant(), suite) == {
            "invariance": set(),
            "direction": set(FLATS.direction),
            "functionality": {name for name in known if not known[name][0].label},
        }

    @pytest.mark.parametrize("suite", BY_NAME.values(), ids=BY_NAME)
    def test_scorer_by_length_fails_each_kind(self, suite):
        names = failed(Lengthy(), suite)
        assert "white space" in names["invariance"]
        assert names["direction"] >= {"in Paphos", "in Larnaca", "in Nicosia"}
        assert names["functionality"] >= {"sale", "seeker in Russian"}

    @pytest.mark.parametrize("suite", BY_NAME.values(), ids=BY_NAME)
    def test_inverted_scorer_fails_all_but_invariance(self, suite):
        assert failed(Inverted(), suite) == {
            "invariance": set(),
            "direction": set(FLATS.direction),
            "functionality": set(FLATS.functionality),
        }
        assert check_of(Inverted(), "sale").reached == {"accuracy": 0.0}

    @pytest.mark.parametrize("name", FLATS.invariance)
    def test_one_change_that_moves_scores_fails_one_check(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.95 for pair in FLATS.invariance[name]}
        assert failed(scorer) == {"invariance": {name}, "direction": set(), "functionality": set()}

    @pytest.mark.parametrize("name", FLATS.direction)
    def test_offers_that_do_not_fall_fail_one_check(self, name):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.9 for pair in FLATS.direction[name][:2]}
        assert failed(scorer) == {"invariance": set(), "direction": {name}, "functionality": set()}
        check = check_of(scorer, name)
        assert check.reached["share that falls"] == 0.8
        assert [(case.score_before, case.score) for case in check.failures] == [(0.9, 0.9)] * 2

    @pytest.mark.parametrize("name", FLATS.functionality)
    def test_misclassified_kind_fails_one_check(self, name):
        scorer = Truthful()
        wrong = [message.text for message in FLATS.functionality[name][:3]]
        scorer.scores |= {text: 1 - scorer.scores[text] for text in wrong}
        assert failed(scorer) == {"invariance": set(), "direction": set(), "functionality": {name}}
        assert [case.text for case in check_of(scorer, name).failures] == wrong

    def test_large_mean_fails_without_large_moves(self):
        scorer = Truthful()
        scorer.scores |= {pair.after: 0.75 for pair in FLATS.invariance["name added"]}
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] == pytest.approx(0.15)
        assert len(check.failures) == EXAMPLES

    def test_large_move_fails_with_a_small_mean(self):
        scorer = Truthful()
        pair = FLATS.invariance["name added"][0]
        scorer.scores[pair.after] = 0.1
        check = check_of(scorer, "name added")
        assert not check.passed
        assert check.reached["mean move"] < FLATS.required["name added"]["mean move"]
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
        assert main(["--suite", "flats", "--out", str(tmp_path / "behaviour.json")]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("feedsieve-classifier:1, threshold 0.500\n")
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        assert (table["model"], table["passed"]) == ("feedsieve-classifier:1", True)
        assert {check["name"] for check in table["checks"]} == set(FLATS.required)

    def test_failed_check_is_explained(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Inverted())
        assert main(["--suite", "flats", "--out", str(tmp_path / "behaviour.json")]) == 1
        text = FLATS.functionality["sale"][0].text
        assert f"  0.900  {text}" in capsys.readouterr().out
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        [sale] = [check for check in table["checks"] if check["name"] == "sale"]
        assert not table["passed"] and not sale["passed"]
        assert {failure["text"] for failure in sale["failures"]} >= {text}

    def test_unwritable_file_is_reported(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("train.behave.load_scorer", lambda tag, threads: Truthful())
        assert main(["--suite", "flats", "--out", str(tmp_path / "none" / "behaviour.json")]) == 1
        assert "behaviour.json: No such file" in capsys.readouterr().err

    def test_missing_model_is_reported(self, tmp_path):
        done = behave("--suite", "flats", "--model", "feedsieve-classifier:none", home=tmp_path)
        assert done.returncode == 1
        assert "behave: the model store has no feedsieve-classifier:none" in done.stderr
        assert "`make train`" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.lab
class TestSampleModel:
    def test_model_of_make_train_meets_its_requirements(self, sample, tmp_path):
        """The default encoder on the whole sample, which takes minutes."""
        data = ["--data", sample / "labeled_messages.csv", "--report", tmp_path / "report"]
        environment = os.environ | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
        done = run_python("-m", "train", *data, "--no-track", cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        done = behave("--suite", "sample", "--out", tmp_path / "behaviour.json", home=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        table = json.loads((tmp_path / "behaviour.json").read_text(encoding="utf-8"))
        assert table["passed"]
        assert table["model"].startswith("feedsieve-classifier:")


def behave(*arguments, home) -> subprocess.CompletedProcess[str]:
    """Run the command on the model store in `home`."""
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    return run_python("-m", "train.behave", *arguments, cwd=ROOT, env=environment)
