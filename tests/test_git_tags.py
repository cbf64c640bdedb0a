import shutil
import subprocess
from pathlib import Path

import pytest

from feedsieve import commit
from train.tracking.git_tags import commit_tags


class TestCommit:
    @pytest.fixture
    def checkout(self, tmp_path, monkeypatch) -> Path:
        self.git(tmp_path, "init", "--quiet")
        (tmp_path / "code.py").write_text("first\n")
        self.git(tmp_path, "add", "code.py")
        self.git(tmp_path, "commit", "--quiet", "--message", "first")
        monkeypatch.setattr(commit, "_HERE", tmp_path / "code.py")
        return tmp_path

    @staticmethod
    def git(folder: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def test_commit_is_the_head_of_the_code(self, checkout):
        (checkout / "labeled.csv").write_text("anybody's")
        head = self.git(checkout, "rev-parse", "HEAD")
        assert commit_tags() == {"mlflow.source.git.commit": head, "git.dirty": "false"}

    def test_changed_code_is_dirty(self, checkout):
        (checkout / "code.py").write_text("second\n")
        assert commit_tags()["git.dirty"] == "true"

    def test_untracked_code_has_no_commit(self, checkout, monkeypatch):
        monkeypatch.setattr(commit, "_HERE", checkout / "installed.py")
        assert commit_tags() == {}
        shutil.rmtree(checkout / ".git")
        assert commit_tags() == {}
