"""CI workflows: their commands are targets that run anywhere, and are run here."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
DOWNLOAD = (
    'gh run download "$(gh run list --workflow release.yml --status success --limit 1'
    " --json databaseId --jq '.[].databaseId')\" --name preproduction --dir preproduction || true"
)
NOT_HERE = {
    ".ci/run": "it is what runs all tests but these",
    "make test-lab": "it is what runs this",
    DOWNLOAD: "there is no earlier run",
    'gh pr comment "$PULL_REQUEST" --body-file reports/promotion.md': "there is no pull request",
}


def workflow(name: str) -> Any:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def commands(name: str) -> list[str]:
    jobs = workflow(name)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout as in CI, with the existing environment."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path / "checkout"
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def test_workflows_run_on_their_events():
    assert workflow("tests.yml")[True]["pull_request"] is None  # YAML takes `on` for a truth
    assert workflow("release.yml")[True] == {"pull_request": {"branches": ["release/*"]}}
    [job] = workflow("release.yml")["jobs"].values()
    assert job["if"] == "startsWith(github.head_ref, 'feature/')"


@pytest.mark.lab
@pytest.mark.skipif(not (ROOT / ".venv" / "train").exists(), reason="`make setup` made no .venv")
def test_commands_of_workflows_succeed(checkout, tmp_path):
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "preproduction" / "bentoml"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'preproduction' / 'mlflow.db'}",
    }
    ran = []
    for file in sorted(WORKFLOWS.glob("*.yml")):
        for command in commands(file.name):
            if command in NOT_HERE:
                continue
            done = subprocess.run(
                command,
                shell=True,
                executable="/bin/bash",
                cwd=checkout,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            ran.append(command)
    assert ran == ["make setup", "make train", "make promote", "make package"]
    assert "is champion now" in (checkout / "reports" / "promotion.md").read_text()
    assert (checkout / "dist" / "feedsieve.bento").stat().st_size > 10_000_000
    for file in (".ci/run", "reports/promotion.md"):
        assert (checkout / file).exists()
