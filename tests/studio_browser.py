"""The labelling screen of a running Label Studio, opened in a real browser by its owner."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from studio_server import PROGRAM, StudioServer

from labeling.server import PASSWORD_FILE, USER

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `screenshots` has it")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHOWN_WITHIN = 120_000.0  # milliseconds
NEEDS_BROWSER = [
    pytest.mark.lab,
    pytest.mark.skipif(not PROGRAM.exists(), reason="`make test-lab` installs Label Studio"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@contextmanager
def labelling_page(server: StudioServer, project: int) -> Iterator[Any]:
    """Yield playwright's page with the stream of a project's tasks."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(SHOWN_WITHIN)
        page.goto(f"{server.url}/user/login")
        page.fill("input[name=email]", USER)
        page.fill("input[name=password]", (server.data / PASSWORD_FILE).read_text().strip())
        with page.expect_navigation():
            page.press("input[name=password]", "Enter")
        page.goto(f"{server.url}/projects/{project}/data?labeling=1")
        yield page
        browser.close()
