"""CI workflows: their commands are targets that run anywhere, and are run here."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving import ROOT

from feedsieve import __version__

WORKFLOWS = ROOT / ".github" / "workflows"
PUBLISHED = 'make wheel sbom container IMAGE_SOURCE="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"'
BUILDS = ("release.yml", "publish.yml", "tests.yml")  # in the order of a release
WITHOUT_CODE = ("publish", "comment")  # jobs that may write, and run none of the repository's code
NIGHTLY = "nightly.yml"  # takes half an hour
NOT_HERE = {
    ".ci/run": "it is what runs all tests but these",
    "make test-lab": "it is what runs this",
    "sudo apt-get update -qq && sudo apt-get install -y -qq prometheus": "it changes the machine",
    ".ci/preproduction": "there is no earlier run",
    "make audit": "an index here may have no database of vulnerabilities",
    "docker save feedsieve:latest | gzip > dist/image.tar.gz": "there is no engine",
}
INSTEAD = {PUBLISHED: "make wheel sbom"}  # there is no engine
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def workflow(name: str) -> Any:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def commands(name: str) -> list[str]:
    """Return what a workflow runs of the repository's code."""
    jobs = [job for key, job in workflow(name)["jobs"].items() if key not in WITHOUT_CODE]
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
    branches = {"branches": ["release/*"]}
    assert workflow("release.yml")[True] == {"pull_request": branches, "push": branches}
    job = workflow("release.yml")["jobs"]["release"]
    assert job["if"] == "github.event_name == 'push' || startsWith(github.head_ref, 'feature/')"


@pytest.mark.parametrize("file", sorted(WORKFLOWS.glob("*.yml")), ids=lambda file: file.name)
def test_actions_are_pinned_by_commit(file):
    for line in file.read_text(encoding="utf-8").splitlines():
        assert "uses:" not in line or PINNED.search(line), line


class TestPullRequestsOfForks:
    """Their token may only read, and they get no secrets."""

    JOBS = workflow("release.yml")["jobs"]

    def test_their_jobs_need_no_secret_and_write_nothing(self):
        for file in WORKFLOWS.glob("*.yml"):
            assert "secrets." not in file.read_text(encoding="utf-8")
        assert workflow("release.yml")["permissions"] == {}
        assert set(self.JOBS["release"]["permissions"].values()) == {"read"}
        own = "github.event.pull_request.head.repo.full_name == github.repository"
        assert own in self.JOBS["comment"]["if"]

    def test_they_do_not_change_the_store_of_releases(self):
        [upload] = [
            step
            for step in self.JOBS["release"]["steps"]
            if step.get("with", {}).get("name") == "preproduction"
        ]
        assert upload["if"] == "github.event_name == 'push'"

    def test_job_that_comments_runs_no_code_of_the_repository(self):
        [step] = self.JOBS["comment"]["steps"]
        assert "uses" not in step and "make " not in step["run"]


class TestPublishing:
    JOBS = workflow("publish.yml")["jobs"]

    def test_it_runs_for_tags_of_versions_and_in_no_fork(self):
        assert workflow("publish.yml")[True] == {"push": {"tags": ["v[0-9]*"]}}
        assert self.JOBS["build"]["if"] == "github.event.repository.fork == false"
        assert self.JOBS["publish"]["needs"] == "build"  # skipped with it

    def test_code_of_the_repository_runs_without_permission_to_publish(self):
        assert workflow("publish.yml")["permissions"] == {}
        assert set(self.JOBS["build"]["permissions"].values()) == {"read"}
        steps = self.JOBS["publish"]["steps"]
        assert not any("checkout" in step.get("uses", "") for step in steps)
        assert not any("make " in step.get("run", "") for step in steps)

    @pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v999", 1)])
    def test_tag_has_to_be_the_version(self, tag, code):
        [command] = [one for one in commands("publish.yml") if one.startswith("test ")]
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=os.environ | {"GITHUB_REF_NAME": tag}
        )
        assert done.returncode == code


@pytest.mark.lab
@pytest.mark.skipif(not (ROOT / ".venv" / "train").exists(), reason="`make setup` made no .venv")
def test_commands_of_workflows_succeed(checkout, tmp_path):
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'preproduction' / 'mlflow.db'}",
        "GITHUB_ENV": str(tmp_path / "github.env"),
        "GITHUB_REF_NAME": f"v{__version__}",
    }
    ran = []
    assert {file.name for file in WORKFLOWS.glob("*.yml")} == {*BUILDS, NIGHTLY}
    for name in BUILDS:
        shutil.rmtree(tmp_path / "bentoml", ignore_errors=True)  # each on a machine of its own
        for written in commands(name):
            if written in NOT_HERE:
                continue
            command = INSTEAD.get(written, written)
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
    made = [command for command in ran if command.startswith("make ")]
    assert made == ["make setup", "make train", "make promote", "make package", "make wheel sbom"]
    assert "FEEDSIEVE_MODEL=feedsieve-classifier:" in (tmp_path / "github.env").read_text()
    assert "openvino" in (checkout / "dist" / "feedsieve.cdx.json").read_text()
    assert "is champion now" in (tmp_path / "summary.md").read_text()
    assert (checkout / "dist" / "feedsieve.bento").stat().st_size > 10_000_000
    for file in (".ci/run", "reports/promotion.md"):
        assert (checkout / file).exists()
