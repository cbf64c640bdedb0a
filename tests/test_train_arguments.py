"""Arguments of `python -m train`, and settings in their place."""

from pathlib import Path

import pytest

from feedsieve.settings import settings
from train.__main__ import main
from train.options import Options


class TestFeaturesBySetting:
    """FEEDSIEVE_FEATURES, for trainings that name no other encoder."""

    def options(self, monkeypatch, tmp_path, *arguments: str) -> Options:
        monkeypatch.setattr(settings(), "features", tmp_path / "features")
        found: list[Options] = []
        monkeypatch.setattr("train.__main__._train", found.append)
        monkeypatch.setattr("train.__main__._train_on", lambda _, options: found.append(options))
        monkeypatch.setattr("train.__main__._print_outcome", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["train", "--data", "labels.csv", *arguments])
        assert main() == 0
        return found[0]

    def test_setting_is_used(self, monkeypatch, tmp_path):
        assert self.options(monkeypatch, tmp_path).features == tmp_path / "features"

    def test_argument_comes_first(self, monkeypatch, tmp_path):
        other = self.options(monkeypatch, tmp_path, "--features", "other")
        assert other.features == Path("other")

    def test_job_does_not_use_it(self, monkeypatch, tmp_path):
        assert self.options(monkeypatch, tmp_path, "--on", "local:1").features is None

    @pytest.mark.parametrize("arguments", [["--finetune"], ["--encoder", "tiny"]])
    def test_other_encoder_is_named(self, monkeypatch, tmp_path, capsys, arguments):
        assert self.options(monkeypatch, tmp_path, *arguments).features is None
        assert "FEEDSIEVE_FEATURES is ignored" in capsys.readouterr().out
