"""Other machines: installation on ARM, scoring without OpenVINO."""

import os
import subprocess
import sys

import pytest
from serving import BENTOML, ROOT

SERVE_WITHOUT_OPENVINO = """
import sys
sys.modules["openvino"] = None  # as if it were not installed
from feedsieve.__main__ import main
raise SystemExit(main(["score", *sys.argv[1:], "--force"]))
"""


@pytest.mark.parametrize(
    ("platform", "has_openvino"),
    [("x86_64-manylinux_2_28", True), ("aarch64-manylinux_2_28", False)],
)
def test_runtime_installs_from_wheels(platform, has_openvino):
    done = subprocess.run(
        [BENTOML.with_name("uv"), "pip", "compile", "--quiet", "--python-platform", platform]
        + ["--python-version", "3.11", "--only-binary", ":all:"]
        + ["--constraint", "constraints.txt", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"bentoml", "onnxruntime", "lightgbm", "tokenizers"} <= names
    assert ("openvino" in names) == has_openvino


def test_scores_agree_without_openvino(trained, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("msg\nСдаётся квартира в Лимассоле\nПривет\n", encoding="utf-8")
    run = {"cwd": ROOT, "capture_output": True, "text": True}
    home = os.environ | {"BENTOML_HOME": str(trained)}
    with_it = [sys.executable, "-m", "feedsieve", "score", source, target, "--force"]
    scores = []
    for command in (with_it, [sys.executable, "-c", SERVE_WITHOUT_OPENVINO, source, target]):
        done = subprocess.run(command, env=home, **run)
        assert done.returncode == 0, done.stderr
        lines = target.read_text(encoding="utf-8").splitlines()[1:]
        scores.append([float(line.split(",")[1]) for line in lines])
    assert "the encoder runs on onnxruntime" in done.stderr
    assert scores[1] == pytest.approx(scores[0], abs=0.03)
