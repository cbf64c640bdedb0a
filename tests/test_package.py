"""The wheel: built, installed into an empty environment, and served from an empty folder."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving import BENTOML, ROOT, Server, serve, wait_until_ready
from test_service import BROWSER, CHATTER, OFFER, score

from feedsieve.serve_command import serve as serve_command
from feedsieve.settings import Settings

PACKAGES = ("feedsieve", "train", "export")
UV = BENTOML.with_name("uv")


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tracked() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard")
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout with one commit, of this one's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        if name.startswith(PACKAGES) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", ".", cwd=folder)
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    run("git", *identity, "commit", "--quiet", "--message", "first", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    """Built with the setuptools that is installed, so that no network is needed."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", out, checkout)
    [file] = out.iterdir()
    return file


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory) -> Path:
    """The commands of an environment with the wheel alone, which sees this one's libraries."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place)
    paths = sysconfig.get_paths(vars={"base": str(place), "platbase": str(place)})
    # A path in a .pth file is not searched for further .pth files, such as that of the checkout.
    Path(paths["purelib"], "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [UV, "pip", "install", "--quiet", "--offline", "--no-deps"]
    run(*install, "--python", place / "bin" / "python", wheel)
    return place / "bin"


@pytest.fixture(scope="module")
def elsewhere(commands, trained, tmp_path_factory) -> Iterator[Server]:
    """`feedsieve serve` in an empty folder."""
    empty, state = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("state")
    own = {
        "BENTOML_HOME": str(trained),
        "FEEDSIEVE_DB": str(state / "messages.db"),
        "PYTHONPATH": "",
    }
    with serve(own, state, "", commands / "feedsieve", source=empty, host=()) as running:
        wait_until_ready(running)
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    assert list(empty.iterdir()) == []


def test_wheel_has_the_files_of_its_packages_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {name for name in tracked() if name.startswith(tuple(f"{one}/" for one in PACKAGES))}
    assert inside == ours | {"feedsieve/commit.txt"}


def test_installed_package_scores_as_the_checkout_does(elsewhere, trained, tmp_path):
    texts = (OFFER, CHATTER, "Flat to let in Limassol, 2 bedrooms, 1400 euro")
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\n".join(["msg", *(f'"{text}"' for text in texts)]), encoding="utf-8")
    backend = elsewhere.client.get("/version").json()["backend"]["backend"]
    command = [sys.executable, "-m", "feedsieve", "score", source, target]
    run(*command, BENTOML_HOME=str(trained), FEEDSIEVE_BACKEND=backend)
    with target.open(encoding="utf-8") as file:
        expected = [float(row["score"]) for row in csv.DictReader(file)]
    served = [row["score"] for row in score(elsewhere, *texts)]
    assert served == pytest.approx(expected, abs=1e-5)  # the file has six decimals


def test_installed_package_has_pages_and_knows_its_commit(elsewhere, checkout):
    page = elsewhere.client.get("/feed", headers=BROWSER)
    assert page.status_code == 200 and "feedsieve import" in page.text
    commit = run("git", "rev-parse", "HEAD", cwd=checkout)
    assert elsewhere.client.get("/version").json()["commit"] == commit


@pytest.mark.parametrize("module", ["train", "train.promote", "export"])
def test_installed_package_trains(commands, tmp_path, module):
    told = run(commands / "python", "-m", module, "--help", cwd=tmp_path, PYTHONPATH="")
    assert told.startswith(f"usage: python -m {module}")


def test_serve_without_a_model_says_where_to_get_one(commands, tmp_path):
    done = subprocess.run(
        [commands / "feedsieve", "serve"],
        cwd=tmp_path,
        env=os.environ | {"BENTOML_HOME": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "python -m train" in line and "bentoml models import /PATH/TO/FILE" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "localhost"], "an IP address such as 127.0.0.1"),
        (["--port", "70000"], "70000 is not in the range"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_serve_refuses_wrong_options(arguments, said):
    done = CliRunner().invoke(serve_command, arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_serve_lists_all_settings():
    told = CliRunner().invoke(serve_command, ["--help"]).output
    for name, field in Settings.model_fields.items():
        assert f"  {field.validation_alias or f'FEEDSIEVE_{name.upper()}'} " in told
