"""Files that the image adds to the Bento; `make image-check` checks the image itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bentoml
import pytest
from serving import ROOT, free_port

from deploy.audit import Unaudited, audit
from deploy.image.check import ImageRejected, check_metadata

IMAGE = ROOT / "deploy" / "image"
LABELS = ("title", "version", "revision", "licenses", "source")


def ready(**variables: str) -> int:
    done = subprocess.run(
        [sys.executable, IMAGE / "ready.py"], env=os.environ | variables, capture_output=True
    )
    return done.returncode


def test_health_check_passes_if_the_server_is_ready(small_server):
    port = str(small_server.client.base_url.port)
    assert ready(BENTOML_PORT=port) == 0
    assert ready(BENTOML_PORT="1", PORT=port) == 0  # as BentoML's entrypoint has it
    assert ready(BENTOML_PORT=str(free_port())) == 1


def start(bento: Path, volume: Path, *command: str) -> subprocess.CompletedProcess[str]:
    own = {"BENTO_PATH": str(bento), "TMPDIR": str(volume / "tmp")}
    return subprocess.run(
        ["sh", IMAGE / "entrypoint.sh", *command],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )


def test_entrypoint_prepares_an_empty_volume_and_runs_commands(tmp_path):
    (tmp_path / "env" / "docker").mkdir(parents=True)
    theirs = "_internal/container/frontend/dockerfile/entrypoint.sh"
    shutil.copy(Path(bentoml.__file__).parent / theirs, tmp_path / "env" / "docker")
    (tmp_path / "env" / "docker" / "entrypoint.sh").chmod(0o755)
    (tmp_path / "volume").mkdir()
    done = start(tmp_path, tmp_path / "volume", "sh", "-c", 'touch "$TMPDIR/file"; exit 3')
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "volume" / "tmp" / "file").is_file()


def test_volume_that_cannot_be_written_ends_the_container_with_one_line(tmp_path):
    done = start(tmp_path, Path("/proc"))  # root can write anywhere else
    assert done.returncode == 1
    assert f"user {os.getuid()} of group {os.getgid()} cannot write" in done.stderr.splitlines()[-1]


def test_image_of_root_or_without_labels_is_rejected():
    labels = {f"org.opencontainers.image.{name}": "1" for name in LABELS}
    good = {
        "User": "1034:0",
        "Labels": labels,
        "Volumes": {"/data": {}},
        "Healthcheck": {"Test": []},
    }
    check_metadata(good)
    for change in (
        {"User": ""},
        {"User": "root"},
        {"Labels": {}},
        {"Volumes": {"/": {}}},
        {"Healthcheck": None},
    ):
        with pytest.raises(ImageRejected):
            check_metadata(good | change)


def test_audit_without_a_network_fails_in_one_line(tmp_path, monkeypatch):
    pins = tmp_path / "pins.txt"
    pins.write_text("click==8.2.0\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unaudited, match="it needs a network") as error:
        audit(pins)
    assert len(str(error.value).splitlines()) == 1
