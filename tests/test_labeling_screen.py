"""The labelling screen of a running Label Studio, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from labeling_command import labeling
from studio_server import PROGRAM, StudioServer, studio_server

from labeling.batch import Item, write_batch
from labeling.push import TITLE
from labeling.server import PASSWORD_FILE, USER
from labeling.studio import Studio

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `screenshots` has it")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHOWN_WITHIN = 120_000.0  # milliseconds
TEXT = "Отдам котёнка, два месяца"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not PROGRAM.exists(), reason="`make test-lab` installs Label Studio"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[StudioServer]:
    with studio_server(tmp_path_factory.mktemp("screen")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server, tmp_path_factory) -> Iterator[object]:
    """The stream of tasks with predictions of both labels, opened by the owner."""
    home: Path = tmp_path_factory.mktemp("home")
    write_batch([Item(str(n), f"{TEXT}, {n}", 0.1 + 0.8 * (n % 2)) for n in range(4)], home / "b")
    done = labeling("push", "b", "--url", server.url, "--token", server.token, home=home)
    assert done.returncode == 0, done.stderr
    project = Studio.open(server.url, server.token).find(TITLE)
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


def test_key_of_the_prediction_chooses_it_and_submits(page, server):
    """Nothing is preselected, so no key takes a choice back."""
    owner = server.owner()
    project = Studio.open(server.url, server.token).find(TITLE)
    for number in range(2):
        page.get_by_text(f"{TEXT}, {number}", exact=True).wait_for()
        predicted = "positive" if number % 2 else "negative"
        page.get_by_text(
            f"prediction: {predicted}, score 0.{'9' if number % 2 else '1'}0 by"
        ).wait_for()
        assert page.locator("input[type=checkbox]:checked, input[type=radio]:checked").count() == 0
        page.keyboard.press("1" if predicted == "positive" else "2")
        page.locator("button[name=submit]").click()
        page.get_by_text(f"{TEXT}, {number + 1}", exact=True).wait_for()
        task = owner.tasks(project)[str(number)]
        [annotation] = task["annotations"]
        assert annotation["result"][0]["value"] == {"choices": [predicted]}
