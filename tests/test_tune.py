import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from feedsieve.settings import settings
from train.classifier import boosting
from train.classifier.parameters import FIXED, PARAMETERS, PARAMETERS_FILE
from train.tune import main, tune


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 6))
    labels = (
        features[:, 0] + features[:, 1] * (features[:, 2] > 0) + random.normal(size=300) > 1
    ) * 1
    return features, labels, np.arange(300)


def test_tune_returns_lightgbm_parameters(data):
    best, study = tune(*data, log_odds=1, trials=3, seed=7)
    assert set(best) == set(PARAMETERS["frozen"]) - set(FIXED)
    assert len(study.trials) == 3
    assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)
    assert 0 < study.best_value < 0.693  # log loss of a coin


def test_seed_decides_the_result(data):
    first, _study = tune(*data, log_odds=1, trials=2, seed=7)
    again, _study = tune(*data, log_odds=1, trials=2, seed=7)
    other, _study = tune(*data, log_odds=1, trials=2, seed=8)
    assert first == again != other


def test_random_labels_cannot_be_tuned(data):
    """A search on rows that boosters were fitted on would reach a lower loss."""
    features, _labels, groups = data
    labels = np.random.default_rng(1).integers(0, 2, 300)
    _best, study = tune(features, labels, groups, log_odds=1, trials=5, seed=7)
    assert study.best_value > 0.67


def test_adjudicated_labels_judge(data):
    """Boosters fitted on the labels cannot know others."""
    others = 1 - data[1]
    _best, study = tune(*data, log_odds=1, trials=2, seed=7, judge=others)
    assert study.best_value > 0.693


def test_stored_trials_are_not_repeated(data, tmp_path, capsys, monkeypatch):
    storage = tmp_path / "trials.sqlite"
    _best, study = tune(*data, log_odds=1, trials=3, seed=7, storage=storage)
    made = [trial.params for trial in study.trials]
    best, longer = tune(*data, log_odds=1, trials=5, seed=7, storage=storage)
    assert "resuming after 3 trials" in capsys.readouterr().out
    parameters = [trial.params for trial in longer.trials]
    assert parameters[:3] == made
    assert len({str(tried) for tried in parameters}) == 5
    monkeypatch.setattr(boosting, "held_out", None)
    again, _study = tune(*data, log_odds=1, trials=5, seed=7, storage=storage)
    assert again == best


class TestCommand:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("tune")
        write(compose(200, 7), folder)
        save_tiny_bert(folder / "tiny")
        return folder

    @pytest.mark.parametrize(("flags", "changed"), [([], "frozen"), (["--finetune"], "finetuned")])
    def test_command_writes_parameters(self, folder, tmp_path, monkeypatch, flags, changed):
        monkeypatch.setenv("FEEDSIEVE_CACHE", str(tmp_path / "cache"))
        settings.cache_clear()
        out = tmp_path / "new" / "parameters.json"
        arguments = ["--data", str(folder / LABELED), "--encoder", str(folder / "tiny")]
        assert main([*arguments, "--trials", "2", "--out", str(out), *flags]) == 0
        settings.cache_clear()
        written, before = (json.loads(path.read_text()) for path in (out, PARAMETERS_FILE))
        assert {name for name in before if written[name] != before[name]} == {changed}
        assert set(written[changed]) == set(before[changed])
        assert not list((tmp_path / "cache").glob("tune-*"))
        run = mlflow.search_runs(experiment_names=["tune"], output_format="list")[0]
        assert run.info.status == "FINISHED"
        assert float(run.data.params["lightgbm.lambda_l2"]) == written[changed]["lambda_l2"]
        assert 0 < run.data.metrics["log_loss"] < 0.693

    def test_zero_trials_are_rejected(self, folder, capsys):
        with pytest.raises(SystemExit):
            main(["--data", str(folder / LABELED), "--trials", "0"])
        assert "at least 1, not 0" in capsys.readouterr().err


def test_checked_in_parameters_are_complete():
    assert set(PARAMETERS) == {"frozen", "finetuned"}
    for parameters in PARAMETERS.values():
        assert 0 < parameters["learning_rate"] <= 0.2
        assert parameters["objective"] == "binary"
