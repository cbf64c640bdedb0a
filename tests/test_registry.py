"""Versions of the registered model, in MLflow's SQLite file."""

import pytest
from mlflow_server import empty, store

from train.tracking import mlflow_run, registry
from train.tracking.registry import CHALLENGER, CHAMPION, Pair, VersionNotFound

__all__ = ["empty", "store"]


class TestRegistry:
    @pytest.fixture
    def trained(self, store) -> list[Pair]:
        pairs = [Pair(f"feedsieve-classifier:{n}", f"feedsieve-encoder:{n}", "f") for n in "abc"]
        for pair in pairs:
            with mlflow_run.run("tests", {}) as run:
                registry.register(run, pair)
        return pairs

    def test_the_newest_version_is_the_challenger(self, trained):
        there = registry.versions()
        assert [version.number for version in there] == [3, 2, 1]
        assert [version.pair for version in there] == trained[::-1]
        assert [set(version.aliases) for version in there] == [{CHALLENGER}, set(), set()]
        assert registry.behind(CHALLENGER) == there[0]
        assert registry.behind(CHAMPION) is None

    def test_champion_moves(self, trained):
        for number in (1, 2):
            registry.move(CHAMPION, number)
            assert registry.behind(CHAMPION).number == number
        assert registry.behind(CHAMPION).pair == trained[1]
        assert registry.behind(CHALLENGER).number == 3

    def test_unknown_version_is_rejected(self, trained):
        with pytest.raises(
            VersionNotFound, match="feedsieve has no version 9 in MLflow; it has 3, 2, 1"
        ):
            registry.move(CHAMPION, 9)

    def test_registry_is_empty_before_training(self, store):
        assert registry.versions() == []
        assert registry.behind(CHAMPION) is None
        with pytest.raises(VersionNotFound, match="it has none"):
            registry.move(CHAMPION, 1)
