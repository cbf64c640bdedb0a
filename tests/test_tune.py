import numpy as np
import pytest

from train import classifier
from train.tune import tune


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 6))
    labels = (
        features[:, 0] + features[:, 1] * (features[:, 2] > 0) + random.normal(size=300) > 1
    ) * 1
    return features, labels, np.arange(300)


def test_it_returns_what_lightgbm_takes(data):
    best, study = tune(*data, scores=1, trials=3, seed=7)
    assert set(best) == set(classifier.PARAMETERS["frozen"]) - set(classifier.FIXED)
    assert len(study.trials) == 3
    assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)
    assert 0 < study.best_value < 0.693  # of a coin


def test_the_seed_decides(data):
    first, _study = tune(*data, scores=1, trials=2, seed=7)
    again, _study = tune(*data, scores=1, trials=2, seed=7)
    other, _study = tune(*data, scores=1, trials=2, seed=8)
    assert first == again != other


def test_labels_by_chance_cannot_be_tuned(data):
    """A search that looked at rows it learns from would find a loss far below a coin's."""
    features, _labels, groups = data
    labels = np.random.default_rng(1).integers(0, 2, 300)
    _best, study = tune(features, labels, groups, scores=1, trials=5, seed=7)
    assert study.best_value > 0.67


def test_what_is_checked_in_is_complete():
    assert set(classifier.PARAMETERS) == {"frozen", "finetuned"}
    for parameters in classifier.PARAMETERS.values():
        assert 0 < parameters["learning_rate"] <= 0.2
        assert parameters["objective"] == "binary"
