import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from export import sources
from feedsieve.settings import settings
from train.compare import main
from train.data.labelled import read_labeled
from train.data.split import data_fingerprint, split
from train.evaluation import candidates
from train.evaluation.candidates import Part, Predictions
from train.evaluation.cross_validation import TEST, Results, cross_validate
from train.report.quality import table

CANDIDATES = [
    candidates.LOGISTIC,
    candidates.SVC,
    candidates.FROZEN_ALONE,
    candidates.FROZEN,
    candidates.SOFTMAX,
    candidates.TUNED_32,
    candidates.TUNED_8,
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
    cache = folder / "cache"
    return cross_validate(
        frame, source, 7, cache, finetune=True, test=True, student_layers="1", count=2
    )


def test_every_candidate_scores_every_message_once(results):
    assert list(results.predictions) == CANDIDATES
    held_out = np.concatenate([trial.held_out for trial in results.folds])
    assert sorted(held_out) == list(range(len(held_out)))
    for trial in results.trials:
        assert not set(trial.train) & set(trial.held_out)
        for candidate in CANDIDATES:
            predictions = results.predictions[candidate][trial.name]
            assert predictions.scores.shape == trial.held_out.shape
            assert ((predictions.scores > 0) & (predictions.scores < 1)).all()
            assert 0 < predictions.threshold < 1
    [test] = [trial for trial in results.trials if trial.name == TEST]
    assert sorted([*test.train, *test.held_out]) == list(range(len(results.frame)))


def test_linear_model_beats_an_untrained_encoder(results):
    words, untrained = (
        results.fold_figures(candidate)["average_precision"].mean()
        for candidate in (candidates.SVC, candidates.FROZEN_ALONE)
    )
    assert words > untrained + 0.05


def test_table_has_every_candidate_and_part(results):
    page = table(results)
    for heading in ("## 2 folds", "## Test part", "## By language", "## By length"):
        assert heading in page
    for candidate in CANDIDATES:
        assert page.count(f"| {candidate} |") == 4
    assert "±" in page


def test_table_shows_mean_and_deviation_over_folds(results):
    """One candidate is always right, the other is always wrong in the first fold."""
    labels = results.frame["label"].to_numpy()
    right = {
        fold.name: Predictions(np.where(labels[fold.held_out] == 1, 0.9, 0.1), 0.5)
        for fold in results.folds
    }
    wrong = right | {"fold 1": Predictions(1 - right["fold 1"].scores, 0.5)}
    made_up = Results(results.frame, results.folds, {"right": right, "wrong": wrong})
    page = table(made_up)
    assert "| right | 1.000 ± 0.000 | 1.000 ± 0.000 |" in page
    assert "| wrong | 0.500 ± 0.707 |" in page


def test_adjudicated_labels_judge_too(results):
    """The candidate says what the labels say; every fourth of them is wrong."""
    labels = results.frame["label"].to_numpy()
    frame = results.frame.assign(adjudicated=np.where(np.arange(len(labels)) % 4, labels, 0))
    given = {
        trial.name: Predictions(np.where(labels[trial.held_out] == 1, 0.9, 0.1), 0.5)
        for trial in results.trials
    }
    page = table(Results(frame, results.trials, {"given": given}))
    by_given, by_review = page.split("By adjudicated labels")[:2]
    assert "By labels as they are" in by_given
    assert "| given | 1.000 ± 0.000 |" in by_given
    assert "| given | 1.000" not in by_review.partition("## Test part")[0]
    assert page.count("By adjudicated labels") == 2  # folds and test part


def test_stored_predictions_are_not_computed_again(folder, results, monkeypatch):
    def fail(*_arguments):
        raise Called

    for way in ("linear", "frozen", "tuned"):
        monkeypatch.setattr(candidates, way, fail)
    source = sources.load(str(folder / "tiny"))
    again = cross_validate(
        read_labeled(folder / LABELED),
        source,
        7,
        folder / "cache",
        finetune=True,
        test=True,
        student_layers="1",
        count=2,
    )
    assert table(again) == table(results)


def test_encoder_checkpoints_are_deleted(folder, results):
    folders = [path.name for path in (folder / "cache").rglob("*") if path.is_dir()]
    assert [name.partition("-")[0] for name in folders] == ["compare"]


def test_interrupted_run_resumes_with_the_encoders_of_its_fold(
    folder, results, monkeypatch, tmp_path
):
    [place] = shutil.copytree(folder / "cache", tmp_path / "cache").glob("compare-*")
    (place / "tuned-fold-2.json").unlink()
    (place / "encoders-fold-2").mkdir()

    def tuned(_part, _source, _seed, encoders, *_arguments):
        assert encoders == place / "encoders-fold-2" and encoders.is_dir()
        raise Called

    monkeypatch.setattr(candidates, "tuned", tuned)
    source, frame = sources.load(str(folder / "tiny")), read_labeled(folder / LABELED)
    options = {"test": True, "student_layers": "1", "count": 2}
    cross_validate(frame, source, 7, tmp_path / "cache", finetune=False, **options)
    with pytest.raises(Called):
        cross_validate(frame, source, 7, tmp_path / "cache", finetune=True, **options)


def test_student_is_never_distilled_on_held_out_texts(folder, monkeypatch, tmp_path):
    seen = []

    def distil(_source, layers, texts, *_arguments):
        seen.append((layers, set(texts)))
        raise Called

    monkeypatch.setattr(candidates, "distil", distil)
    part = Part(["a", "b"], np.array([0, 1]), np.arange(2), ["c", "d"], np.zeros(2, bool))
    with pytest.raises(Called):
        candidates.tuned(part, sources.load(str(folder / "tiny")), 7, tmp_path, 1, (0,))
    assert seen == [((0,), {"a", "b"})]


@pytest.mark.parametrize("given", ["1", "-2", "three", "²"])
def test_fewer_than_two_folds_are_rejected(given, capsys):
    with pytest.raises(SystemExit):
        main(["--data", "any.csv", "--folds", given])
    assert "2 or more" in capsys.readouterr().err


def test_number_of_folds_is_configurable(folder, tmp_path):
    source = sources.load(str(folder / "tiny"))
    frame = read_labeled(folder / LABELED)
    more = cross_validate(frame, source, 7, tmp_path, finetune=False, test=False, count=3)
    assert [trial.name for trial in more.trials] == ["fold 1", "fold 2", "fold 3"]
    assert "## 3 folds" in table(more)


def test_more_layers_than_the_encoder_has_are_rejected(folder, capsys, tmp_path):
    arguments = ["--data", str(folder / LABELED), "--encoder", str(folder / "tiny"), "--no-track"]
    assert main([*arguments, "--distil", "3", "--out", str(tmp_path / "quality.md")]) == 1
    assert "the encoder has 2 layers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--distil", "1", "--no-finetune"])
    assert "leave out --no-finetune" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["seed", "order", "part", "encoder"])
def test_other_inputs_do_not_reuse_stored_predictions(
    folder, results, monkeypatch, tmp_path, other
):
    def fail(*_arguments):
        raise Called

    monkeypatch.setattr(candidates, "linear", fail)
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
    source, cache = sources.load(str(place)), folder / "cache"
    with pytest.raises(Called):
        cross_validate(frame, source, seed, cache, finetune=False, test=False, count=2)


class Called(Exception):
    """A patched function was called."""


def test_command_writes_the_page_that_it_prints(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FEEDSIEVE_CACHE", str(tmp_path))
    monkeypatch.setenv("FEEDSIEVE_THREADS", "1")
    settings.cache_clear()
    arguments = ["--data", str(folder / LABELED), "--encoder", str(folder / "tiny")]
    out = tmp_path / "docs" / "quality.md"
    flags = ["--folds", "2", "--no-finetune", "--no-test"]
    assert main([*arguments, *flags, "--out", str(out)]) == 0
    settings.cache_clear()
    page = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == page.strip()
    assert candidates.SVC in page
    data = f"--data {LABELED} --encoder tiny --seed 7"
    assert f"`python -m train.compare {data} {' '.join(flags)}`" in page
    frame = read_labeled(folder / LABELED)
    assert f"are of the {len(split(frame, 7).train)} messages" in page
    assert candidates.SOFTMAX not in page
    assert "Test part" not in page
    assert str(folder) not in page
    [run] = mlflow.search_runs(experiment_names=["compare"], output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.params["data.fingerprint"] == data_fingerprint(frame)
    mean = run.data.metrics[f"{candidates.SVC}.f1".replace(",", "")]
    assert f"| {candidates.SVC} | {mean:.3f} ±" in page


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--data", "absent.csv"], "No such file"),
        (["--data", "{labeled}", "--encoder", "absent"], "no encoder 'absent'"),
    ],
)
def test_command_names_bad_input(folder, arguments, error, capsys, tmp_path):
    filled = [argument.format(labeled=folder / LABELED) for argument in arguments]
    assert main([*filled, "--out", str(tmp_path / "quality.md")]) == 1
    printed = capsys.readouterr().err
    assert error in printed and "Traceback" not in printed
    assert not (tmp_path / "quality.md").exists()
