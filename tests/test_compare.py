import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from export import sources
from train import compare as comparing
from train import contenders
from train.compare import TEST, Results, compare, main, table
from train.contenders import Judgement, Part
from train.data import data_fingerprint, read_labeled, split

EVERYBODY = [
    contenders.LOGISTIC,
    contenders.SVC,
    contenders.FROZEN_ALONE,
    contenders.FROZEN,
    contenders.SOFTMAX,
    contenders.TUNED_32,
    contenders.TUNED_8,
    "fine-tuned encoder of 1 layer, softmax head",
    "fine-tuned encoder of 1 layer, features, LightGBM (fp32)",
    "fine-tuned encoder of 1 layer, features, LightGBM (int8)",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write(compose(300, 7), folder)
    save_tiny_bert(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def results(folder) -> Results:
    frame = read_labeled(folder / LABELED)
    source = sources.load(str(folder / "tiny"))
    return compare(frame, source, 7, folder / "cache", finetune=True, test=True, smaller="1")


def test_everybody_judges_every_message_once(results):
    assert list(results.judgements) == EVERYBODY
    in_folds = [trial for trial in results.trials if trial.name != TEST]
    judged = np.concatenate([trial.judged for trial in in_folds])
    assert sorted(judged) == list(range(len(judged)))
    for trial in results.trials:
        assert not set(trial.rest) & set(trial.judged)
        for contender in EVERYBODY:
            judgement = results.judgements[contender][trial.name]
            assert judgement.scores.shape == trial.judged.shape
            assert ((judgement.scores > 0) & (judgement.scores < 1)).all()
            assert 0 < judgement.threshold < 1
    [test] = [trial for trial in results.trials if trial.name == TEST]
    assert sorted([*test.rest, *test.judged]) == list(range(len(results.frame)))


def test_words_tell_more_than_an_untrained_encoder(results):
    in_folds = [trial for trial in results.trials if trial.name != TEST]
    words, untrained = (
        np.mean([results.figures(who, trial)["average_precision"] for trial in in_folds])
        for who in (contenders.SVC, contenders.FROZEN_ALONE)
    )
    assert words > untrained + 0.05


def test_the_table_has_everybody_and_every_part(results):
    page = table(results)
    for heading in ("## 5 folds", "## Test part", "## By language", "## By length"):
        assert heading in page
    for contender in EVERYBODY:
        assert page.count(f"| {contender} |") == 4
    assert "±" in page


def test_figures_are_those_of_the_folds(results):
    """One contender that knows everything, and one that errs in half of the first fold."""
    labels = results.frame["label"].to_numpy()
    in_folds = [trial for trial in results.trials if trial.name != TEST]
    right = {t.name: Judgement(np.where(labels[t.judged] == 1, 0.9, 0.1), 0.5) for t in in_folds}
    wrong = right | {"fold 1": Judgement(1 - right["fold 1"].scores, 0.5)}
    made_up = Results(results.frame, in_folds, {"right": right, "wrong": wrong})
    page = table(made_up)
    assert "| right | 1.000 ± 0.000 | 1.000 ± 0.000 |" in page
    assert "| wrong | 0.800 ± 0.447 |" in page


def test_what_was_said_is_not_asked_again(folder, results, monkeypatch):
    def refuse(*_arguments):
        raise Asked

    for way in ("linear", "frozen", "tuned"):
        monkeypatch.setattr(contenders, way, refuse)
    source = sources.load(str(folder / "tiny"))
    again = compare(
        read_labeled(folder / LABELED),
        source,
        7,
        folder / "cache",
        finetune=True,
        test=True,
        smaller="1",
    )
    assert table(again) == table(results)


def test_no_encoder_is_left(folder, results):
    kept = [path.name for path in (folder / "cache").rglob("*") if path.is_dir()]
    assert [name.partition("-")[0] for name in kept] == ["compare"]


def test_a_run_that_was_ended_finds_the_encoders_of_the_fold_that_it_was_at(
    folder, results, monkeypatch, tmp_path
):
    [place] = shutil.copytree(folder / "cache", tmp_path / "cache").glob("compare-*")
    (place / "tuned-fold-2.json").unlink()
    (place / "encoders-fold-2").mkdir()

    def judge(_part, _source, _seed, encoders, *_arguments):
        assert encoders == place / "encoders-fold-2" and encoders.is_dir()
        raise Asked

    monkeypatch.setattr(contenders, "tuned", judge)
    source, frame = sources.load(str(folder / "tiny")), read_labeled(folder / LABELED)
    asked = {"test": True, "smaller": "1"}
    compare(frame, source, 7, tmp_path / "cache", finetune=False, **asked)  # which needs none
    with pytest.raises(Asked):
        compare(frame, source, 7, tmp_path / "cache", finetune=True, **asked)


def test_a_smaller_encoder_has_seen_no_message_that_it_is_judged_on(folder, monkeypatch, tmp_path):
    """Not even without its label, which imitating would not need."""
    seen = []

    def imitate(_source, kept, texts, *_arguments):
        seen.append((kept, set(texts)))
        raise Asked

    monkeypatch.setattr(contenders, "imitate", imitate)
    part = Part(["a", "b"], np.array([0, 1]), np.arange(2), ["c", "d"])
    with pytest.raises(Asked):
        contenders.tuned(part, sources.load(str(folder / "tiny")), 7, tmp_path, 1, (0,))
    assert seen == [((0,), {"a", "b"})]


@pytest.mark.parametrize("given", ["1", "-2", "three", "²"])
def test_fewer_than_two_folds_are_refused(given, capsys):
    with pytest.raises(SystemExit):
        main(["--data", "any.csv", "--folds", given])
    assert "2 or more" in capsys.readouterr().err


def test_as_many_folds_as_are_asked_for(folder, tmp_path):
    source = sources.load(str(folder / "tiny"))
    frame = read_labeled(folder / LABELED)
    few = compare(frame, source, 7, tmp_path, finetune=False, test=False, count_folds=2)
    assert [trial.name for trial in few.trials] == ["fold 1", "fold 2"]
    assert "## 2 folds" in table(few)


def test_no_more_layers_than_there_are_can_be_kept(folder, capsys, tmp_path):
    arguments = ["--data", str(folder / LABELED), "--encoder", str(folder / "tiny"), "--no-track"]
    assert main([*arguments, "--distil", "3", "--out", str(tmp_path / "quality.md")]) == 1
    assert "the encoder has 2 layers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--distil", "1", "--no-finetune"])
    assert "leave out --no-finetune" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["seed", "order", "part", "encoder"])
def test_what_was_said_of_something_else_is_asked_again(
    folder, results, monkeypatch, tmp_path, other
):
    def refuse(*_arguments):
        raise Asked

    monkeypatch.setattr(contenders, "linear", refuse)
    frame, place, seed = read_labeled(folder / LABELED), folder / "tiny", 7
    if other == "seed":
        seed = 8
    elif other == "order":
        frame = frame.iloc[::-1].reset_index(drop=True)
    elif other == "part":
        tested = split(frame, 7).test["msg_id"].iloc[1:]  # one fewer than it was
        frame = frame.assign(subset=np.where(frame["msg_id"].isin(tested), "test", "train"))
    else:
        place = save_tiny_bert(tmp_path / "tiny", seed=1)
    with pytest.raises(Asked):
        compare(frame, sources.load(str(place)), seed, folder / "cache", finetune=False, test=False)


class Asked(Exception):
    """A contender was asked, whose answer is there already or should not be."""


def test_the_command_writes_the_page_that_it_prints(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(comparing, "settings", lambda: _Settings(tmp_path))
    arguments = ["--data", str(folder / LABELED), "--encoder", str(folder / "tiny")]
    out = tmp_path / "docs" / "quality.md"
    assert main([*arguments, "--no-finetune", "--no-test", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == page.strip()
    assert contenders.SVC in page
    said = f"--data {LABELED} --encoder tiny --seed 7 --no-finetune --no-test"
    assert f"`python -m train.compare {said}`" in page
    frame = read_labeled(folder / LABELED)
    assert f"are of the {len(split(frame, 7).train)} messages" in page
    assert contenders.SOFTMAX not in page
    assert "Test part" not in page
    assert str(folder) not in page
    [run] = mlflow.search_runs(experiment_names=["compare"], output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.params["data.fingerprint"] == data_fingerprint(frame)
    mean = run.data.metrics[f"{contenders.SVC}.f1".replace(",", "")]
    assert f"| {contenders.SVC} | {mean:.3f} ±" in page


class _Settings:
    threads = 1

    def __init__(self, cache: Path) -> None:
        self.cache = cache


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "absent.csv"], "No such file"),
        (["--data", "{labeled}", "--encoder", "absent"], "no encoder 'absent'"),
    ],
)
def test_what_cannot_be_compared_is_named(folder, arguments, said, capsys, tmp_path):
    filled = [argument.format(labeled=folder / LABELED) for argument in arguments]
    assert main([*filled, "--out", str(tmp_path / "quality.md")]) == 1
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "quality.md").exists()
