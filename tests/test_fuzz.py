"""Requests that schemathesis makes up from the OpenAPI document get no 5xx, nor what it lacks."""

import os
import subprocess
import sys

from serving import ROOT

SECONDS = os.environ.get("FEEDSIEVE_TEST_FUZZ_SECONDS", "30")


def test_made_up_requests_get_documented_answers(small_home):
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.fuzz", "--seconds", SECONDS],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(small_home)},
        capture_output=True,
        text=True,
        timeout=300 + int(SECONDS),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
