"""`make` installs with uv, from where pip is told to."""

import os
import subprocess

from serving import ROOT

INSTALL = "missing:\n\t@$(INSTALL) --dry-run a-package-that-is-not-installed"
NOWHERE = "http://127.0.0.1:9/simple"  # the port of a service that discards what it is sent


def test_pip_settings_hold():
    pip = {"PIP_INDEX_URL": NOWHERE, "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
    environment = os.environ | pip | {"UV_HTTP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        ["make", "--eval", INSTALL, "missing"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{NOWHERE}/a-package-that-is-not-installed" in done.stderr
