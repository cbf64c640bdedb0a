"""The labelling screen of a running Label Studio, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from labeling_command import labeling
from studio_browser import NEEDS_BROWSER, labelling_page
from studio_server import StudioServer, studio_server

from labeling.batch import Item, write_batch
from labeling.push import TITLE
from labeling.studio import Studio

TEXT = "Отдам котёнка, два месяца"

pytestmark = NEEDS_BROWSER


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
    with labelling_page(server, project) as page:
        yield page


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
