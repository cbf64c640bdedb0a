"""The Bento: built, unpacked elsewhere, installed from its own lock, and served there."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from cpu_levels import levels
from serving import BENTOML, ROOT, Server, serve, wait_until_ready
from test_service import CHATTER, OFFER, score

from feedsieve.sources.readers import read_messages
from feedsieve.text import LONGEST

TRAINING = {"torch", "transformers", "optimum", "optimum-onnx", "onnx", "pandas", "scikit-learn"}


@pytest.fixture(scope="module")
def bento(environment, tmp_path_factory) -> Path:
    """A folder with an unpacked Bento and nothing else around it."""
    folder = tmp_path_factory.mktemp("bento")
    run = {"cwd": ROOT, "env": os.environ | environment, "check": True}
    built = subprocess.run([BENTOML, "build", "--output", "tag"], capture_output=True, **run)
    tag = built.stdout.decode().strip().rpartition("__tag__:")[2]
    subprocess.run([BENTOML, "export", tag, folder / "feedsieve.tar"], **run)
    with tarfile.open(folder / "feedsieve.tar") as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def commands(bento, tmp_path_factory) -> Path:
    """The commands of a fresh environment with what the Bento asks for."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    uv = [BENTOML.with_name("uv"), "--quiet"]  # as in the container that BentoML builds
    requirements = bento / "env" / "python" / "requirements.txt"
    subprocess.run([*uv, "venv", "--python", sys.executable, place], check=True)
    subprocess.run(
        [*uv, "pip", "install", "--python", place, "--requirement", requirements], check=True
    )
    return place / "bin"


@pytest.fixture(scope="module")
def elsewhere(server, bento, commands, tmp_path_factory) -> Iterator[Server]:
    """The Bento's server, in an empty folder, with no model store but its own.

    It has the checkout's backend: two that are equally fast may differ in the last digits.
    """
    empty = tmp_path_factory.mktemp("empty")
    state = tmp_path_factory.mktemp("state")
    own = {
        "BENTOML_HOME": str(state / "bentoml"),
        "FEEDSIEVE_DB": str(state / "messages.db"),
        "FEEDSIEVE_BACKEND": server.client.get("/version").json()["backend"]["backend"],
        "PYTHONPATH": "",
    }
    with serve(own, state, str(bento), commands / "bentoml", source=empty) as running:
        wait_until_ready(running)
        yield running
    assert list(empty.iterdir()) == []


def installed(commands: Path) -> set[str]:
    done = subprocess.run(
        [BENTOML.with_name("uv"), "pip", "list", "--python", commands.parent, "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.partition("==")[0].lower() for line in done.stdout.splitlines()}


def test_container_listens_on_all_interfaces(bento):
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert "ARG BENTOML_HOST=0.0.0.0\n" in dockerfile
    assert "ENV BENTOML_HOST=$BENTOML_HOST\n" in dockerfile


def test_it_scores_as_the_checkout_does(server, elsewhere):
    texts = (OFFER, CHATTER, "", "Flat to let in Limassol, 2 bedrooms, 1400 euro")
    assert [row["score"] for row in score(elsewhere, *texts)] == pytest.approx(
        [row["score"] for row in score(server, *texts)], abs=1e-6
    )


@pytest.mark.parametrize("level", [level for level in ("AVX2",) if level in levels()])
def test_it_scores_alike_on_a_cpu_with_fewer_instructions(
    level, server, bento, commands, sample, tmp_path
):
    """Built and trained with all that this CPU has, served with less."""
    rows = list(islice(read_messages(sample / "messages.db"), 200))
    texts = [row.text[:LONGEST] for row in rows]
    own = {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "FEEDSIEVE_DB": str(tmp_path / "messages.db"),
        "ONEDNN_MAX_CPU_ISA": level,
        "PYTHONPATH": "",
    }
    with serve(own, tmp_path, str(bento), commands / "bentoml", source=tmp_path) as lesser:
        wait_until_ready(lesser)
        there, here = (
            np.array([row["score"] for row in score(running, *texts)])
            for running in (lesser, server)
        )
    assert np.abs(there - here).max() <= 0.03
    assert np.abs(there - here).mean() <= 0.003


def test_it_serves_the_very_pair(server, elsewhere):
    assert (
        elsewhere.client.get("/feed").json()["model"] == server.client.get("/feed").json()["model"]
    )


def test_what_serves_is_small(commands):
    names = installed(commands)
    assert {"bentoml", "onnxruntime", "openvino", "lightgbm", "tokenizers"} <= names
    assert {"feedparser", "httpx", "psycopg", "python-telegram-bot", "watchfiles"} <= names
    assert names & TRAINING == set()


def test_nothing_of_the_checkout_is_in_it_that_does_not_serve(bento):
    with tarfile.open(bento.with_name("feedsieve.tar")) as archive:  # what ran from it has bytecode
        names = [Path(name) for name in archive.getnames()]
    files = {str(path.relative_to("src")) for path in names if "src" in path.parts[:-1]}
    assert {
        "service.py",
        "feedsieve/scoring/scorer.py",
        "feedsieve/api/templates/feed.html",
    } <= files
    tops = {file.partition("/")[0] for file in files}
    assert tops <= {
        "service.py", "feedsieve", "pyproject.toml", "constraints.txt", "README.md", "LICENSE",
        "bentofile.yaml",
    }  # fmt: skip
