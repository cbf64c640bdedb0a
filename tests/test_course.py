"""The course from a chat dump to a feed, in a checkout of its own with real components.

The dump into data/, a look in a notebook, labels given in Label Studio in a browser, training,
serving: the order of both READMEs. `make test-lab` runs it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd
from serving import ROOT, serve, wait_for
from studio_browser import NEEDS_BROWSER, labelling_page
from studio_server import StudioServer, studio_server

from data.generate import DATABASE, LABELED, compose, write
from labeling.push import TITLE
from labeling.studio import Studio

MESSAGES, LABELLED, IN_THE_BROWSER, SHOWN = 600, 200, 5, 20
KEYS = {True: "1", False: "2"}
CHOICES = {True: "positive", False: "negative"}

pytestmark = NEEDS_BROWSER


@dataclass(frozen=True)
class Checkout:
    """A copy of the tracked files, with a home of its own, and no data yet."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def copy(cls, place: Path) -> "Checkout":
        folder = place / "feedsieve"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        ours = {
            "BENTOML_HOME": str(place / "bentoml"),
            "IPYTHONDIR": str(place / "ipython"),
            "PYTHONPATH": str(folder),
            "TQDM_DISABLE": "1",
        }
        environment = {name: os.environ[name] for name in os.environ if "MLFLOW" not in name}
        return cls(folder, environment | ours)

    def run(self, *command: str | Path) -> str:
        """Run `python -m COMMAND` and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def label_in_browser(server: StudioServer, project: int, texts: Sequence[str], truth) -> None:
    """Label the first tasks of the stream by their keys, as a person does."""
    with labelling_page(server, project) as page:
        for text in texts:
            start = text.split("\n")[0].strip()
            page.get_by_text(start).first.wait_for()
            page.keyboard.press(KEYS[truth[text]])
            page.locator("button[name=submit]").click()
            page.get_by_text(start).first.wait_for(state="detached")


def _is_full(answer: httpx.Response) -> bool:
    return len(answer.json()["items"]) == SHOWN


def test_dump_becomes_a_feed(tmp_path):
    checkout = Checkout.copy(tmp_path)
    messages = compose(MESSAGES, seed=11)
    truth = {message.text: message.is_let for message in messages}
    # 1. The dump into data/.
    write(messages, tmp_path / "chat", [DATABASE])
    shutil.copyfile(tmp_path / "chat" / DATABASE, checkout.folder / "data" / DATABASE)
    # 2. Look, and a first order without labels.
    notebook = ["nbconvert", "--to", "html", "--execute", "--output-dir", tmp_path / "pages"]
    checkout.run("jupyter", *notebook, "notebooks/01_explore.ipynb")
    page = (tmp_path / "pages" / "01_explore.html").read_text(encoding="utf-8")
    assert "your own data" in page and "plotly" in page
    weak = pd.read_csv(checkout.folder / "data" / "scored_corpus.csv", dtype={"msg_id": str})
    assert len(weak) == MESSAGES and weak["dummy_label"].is_monotonic_decreasing
    # 3. Label the oldest, some of them in a browser.
    (tmp_path / "studio").mkdir()
    with studio_server(tmp_path / "studio") as server:
        reach = ["--url", server.url, "--token", str(server.token)]
        checkout.run("labeling.next", "--by", "time", "--count", str(LABELLED))
        checkout.run("labeling", "push", "data/batch.csv", *reach)
        project = Studio.open(server.url, server.token).find(TITLE)
        owner = server.owner()
        tasks = sorted(owner.tasks(project).values(), key=lambda task: task["id"])
        texts = {task["id"]: task["data"]["msg"] for task in tasks}
        first = [texts[task["id"]] for task in tasks[:IN_THE_BROWSER]]
        label_in_browser(server, project, first, truth)
        done = [task for task in owner.tasks(project).values() if task["annotations"]]
        assert {texts[task["id"]] for task in done} == set(first)
        for task in tasks[IN_THE_BROWSER:]:
            owner.label(task, CHOICES[truth[texts[task["id"]]]])
        # 4. Export the labels.
        checkout.run("labeling", "pull", f"data/{LABELED}", *reach)
    labels = pd.read_csv(checkout.folder / "data" / LABELED, dtype=str)
    assert len(labels) == LABELLED
    assert all(truth[row.msg] == (row.label == "1") for row in labels.itertuples())
    # 5. Train on them.
    output = checkout.run("train")
    assert "on your own data" in output and "saved feedsieve-classifier:" in output
    # 6. Serve.
    with serve(checkout.environment, tmp_path, source=checkout.folder) as running:
        path = f"/feed?limit={SHOWN}"
        wait_for(running, path, lambda answer: answer.is_success and _is_full(answer), within=300)
        top = [item["text"] for item in running.client.get(path).json()["items"]]
    assert sum(truth[text] for text in top) >= 16
