"""`python -m docs.screenshots`: take the screenshots of the docs, with the sample corpus."""

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pandas as pd
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, Route, ViewportSize, sync_playwright

from data.generate import DATABASE, LABELED
from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError
from labeling.server import PASSWORD_FILE, TOKEN_FILE, USER
from loadtests.harness.processes import ServerTimeout, free_port, running

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH = 1280  # pixels
MESSAGES = 1500  # enough for an interesting plot, few enough to train in minutes
LABELS = (300, 600, 1200)  # of the trainings to compare
BATCH = 40  # messages to label
TEST_METRICS = r"^test\.(average|f1|precision|recall|brier|ece)"
WITHIN = 600.0  # seconds for a command to end or a server to answer
SHOWN_WITHIN = 120_000.0  # milliseconds for a page to show its content
SETTLE = 3_000.0  # milliseconds for animations to end

# No questions about news, and no removal of cells outside the viewport.
JUPYTERLAB = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# Position of the central point of the largest cluster, in pixels of the page.
ON_THE_PAGE = """(plot) => {
    const {xaxis, yaxis} = plot._fullLayout, {x, y} = plot._fullData[0];
    const middle = (all) => [...all].sort((a, b) => a - b)[all.length >> 1];
    const [left, top] = [middle(x), middle(y)];
    let best = 0;
    for (let i = 1; i < x.length; i++)
        if (Math.hypot(x[i] - left, y[i] - top) < Math.hypot(x[best] - left, y[best] - top))
            best = i;
    const box = plot.getBoundingClientRect();
    return [
        box.left + xaxis._offset + xaxis.c2p(x[best]),
        box.top + yaxis._offset + yaxis.c2p(y[best]),
    ];
}"""


class ScreenshotFailed(FeedsieveError):
    """Screenshots cannot be taken; the message says why and what to do."""


@dataclass
class Lab:
    """A temporary folder for all data, models and runs that the screenshots show."""

    folder: Path

    @property
    def runs(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make every command and server use this folder."""
        return {
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "FEEDSIEVE_DB": str(self.folder / DATABASE),
            "FEEDSIEVE_MODEL": "feedsieve-classifier:latest",
            "MLFLOW_TRACKING_URI": self.runs,
            "MLFLOW_DISABLE_TELEMETRY": "true",  # or the page asks for consent
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "JUPYTERLAB_SETTINGS_DIR": str(self.folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
            "LABEL_STUDIO_API_KEY": "",
            "IPYTHONDIR": str(self.folder / "ipython"),
        }

    def run(self, program: str, *arguments: object) -> None:
        """Run a program with this environment. Raises ScreenshotFailed."""
        command = [_program(program), *map(str, arguments)]
        _say(f"{program} {' '.join(command[1:])}")
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=WITHIN,
            )
        except subprocess.TimeoutExpired as error:
            raise ScreenshotFailed(
                f"{program} {arguments[0]} took over {WITHIN:.0f} seconds"
            ) from error
        if done.returncode:
            print(done.stdout, file=sys.stderr)
            raise ScreenshotFailed(f"{program} {' '.join(command[1:])} failed; its output is above")

    @contextmanager
    def serve(
        self, port: int, ready: str, program: str, *arguments: object, **environment: str
    ) -> Iterator[str]:
        """Run a server during the block, which starts once the path `ready` answers; yield its URL.

        Raises ScreenshotFailed.
        """
        url, log = f"http://127.0.0.1:{port}", self.folder / f"server-{port}.log"
        command = [_program(program), *map(str, arguments)]
        _say(f"{program} at {url}")
        try:
            with running(command, f"{url}{ready}", log, self.environment | environment, WITHIN):
                yield url
        except ServerTimeout as error:
            print(log.read_text(errors="replace"), file=sys.stderr)
            raise ScreenshotFailed(str(error)) from error


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the servers first
    return run_command("screenshots", lambda: _write(options.out))


def _write(out: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ScreenshotFailed(
            "there is no Chromium; on Debian `apt-get install chromium` installs it"
        )
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="screenshots-") as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder))
        _prepare(lab)
        chromium = playwright.chromium.launch(executable_path=browser)
        try:
            for name, height, show in PICTURES:
                size: ViewportSize = {"width": WIDTH, "height": height}
                page = chromium.new_page(viewport=size, locale="en-GB", color_scheme="light")
                page.set_default_timeout(SHOWN_WITHIN)
                page.route("**/*", _only_here)
                with show(lab, page):
                    page.wait_for_timeout(SETTLE)
                    page.screenshot(path=out / name)
                page.close()
                _say(f"{out / name}")
        except BrowserError as error:
            raise ScreenshotFailed(
                f"a page has changed: {error.message.splitlines()[0]}"
            ) from error
        finally:
            chromium.close()


def _prepare(lab: Lab) -> None:
    """Make the sample corpus and train on growing numbers of its labels."""
    lab.run("python", "-m", "data.generate", "--out", lab.folder, "--messages", MESSAGES)
    labeled = pd.read_csv(lab.folder / LABELED, dtype=str)
    for count in LABELS:
        first = lab.folder / f"first_{count}.csv"
        labeled.head(count).to_csv(first, index=False)
        report = lab.folder / f"report_{count}"
        lab.run("python", "-m", "train", "--data", first, "--report", report)


@contextmanager
def _mlflow(lab: Lab, page: Page) -> Iterator[None]:
    """Show the test metrics of the trainings."""
    port = free_port()
    serving = ["server", "--workers", 1, "--host", "127.0.0.1", "--port", port]
    with lab.serve(port, "/health", "mlflow", *serving, "--backend-store-uri", lab.runs) as url:
        page.goto(url)
        page.get_by_text("Model training", exact=True).click()
        # The assistant opens by itself once and hides the charts.
        page.evaluate("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
        # Experiment 0 is MLflow's default.
        page.goto(f"{url}/#/experiments/1/runs?compareRunsMode=CHART")
        page.reload()
        page.get_by_placeholder("Search metric charts").fill(TEST_METRICS)
        page.get_by_text("test.f1").first.wait_for()
        yield


@contextmanager
def _studio(lab: Lab, page: Page) -> Iterator[None]:
    """Show the longest message of a batch, with its prediction."""
    port = free_port()
    data = lab.folder / ".labelstudio"
    batch = lab.folder / "batch.csv"
    labeled = lab.folder / f"first_{LABELS[-1]}.csv"
    choosing = ["--labeled", labeled, "--out", batch, "--count", BATCH]
    lab.run("python", "-m", "labeling.next", *choosing)
    serving = ["-m", "labeling.server", "--port", port, "--data", data]
    with lab.serve(port, "/health", "python", *serving) as url:
        token = data / TOKEN_FILE
        lab.run("python", "-m", "labeling", "push", batch, "--url", url, "--token", token)
        longest = int(pd.read_csv(batch)["msg"].str.len().idxmax())
        page.goto(f"{url}/user/login")
        page.fill("input[name=email]", USER)
        page.fill("input[name=password]", (data / PASSWORD_FILE).read_text().strip())
        with page.expect_navigation():
            page.press("input[name=password]", "Enter")
        page.goto(f"{url}/projects/1/data?task={longest + 1}")  # task numbers start at 1
        page.get_by_text("positive").first.wait_for()
        yield


@contextmanager
def _plot(lab: Lab, page: Page) -> Iterator[None]:
    """Show the scatter plot of messages, with the pointer on one of them."""
    notebook = lab.folder / "notebooks" / "01_explore.ipynb"
    _explore(lab, notebook)
    for plugin, settings in JUPYTERLAB.items():
        file = lab.folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    port = free_port()
    token = secrets.token_hex()
    serving = ["lab", "--allow-root", "--no-browser", "--ip", "127.0.0.1", "--port", port]
    serving += [f"--ServerApp.root_dir={notebook.parent}", "--LabApp.extension_manager=readonly"]
    with lab.serve(port, "/api", "jupyter", *serving, JUPYTER_TOKEN=token) as url:
        page.goto(f"{url}/doc/tree/{notebook.name}?token={token}")
        plot = page.locator(".js-plotly-plot").nth(1)  # the first shows lengths
        plot.wait_for(state="attached")
        page.wait_for_timeout(SETTLE)
        plot.evaluate("(plot) => plot.scrollIntoView({block: 'end'})")
        page.wait_for_timeout(SETTLE)
        x, y = plot.evaluate(ON_THE_PAGE)
        page.mouse.move(x, y)
        page.locator(".hoverlayer text").first.wait_for()
        yield


def _explore(lab: Lab, notebook: Path) -> None:
    """Run a copy of the notebook that writes into the lab's folder."""
    explore = nbformat.read(ROOT / "notebooks" / notebook.name, as_version=4)
    [parameters] = [cell for cell in explore.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += f"\nOUT = Path({str(lab.folder / 'scored_corpus.csv')!r})"
    notebook.parent.mkdir(exist_ok=True)
    nbformat.write(explore, notebook)
    lab.run("jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", notebook)


@contextmanager
def _feed(lab: Lab, page: Page) -> Iterator[None]:
    """Show the first messages of the feed, once all are scored."""
    port = free_port()
    serving = ["serve", "service:Feedsieve", "--host", "127.0.0.1", "--port", port]
    with lab.serve(port, "/readyz", "bentoml", *serving) as url:
        for _ in range(int(WITHIN)):
            page.goto(f"{url}/feed")
            if page.locator("meter").count():
                break
            page.wait_for_timeout(1_000.0)
        page.wait_for_timeout(20_000.0)  # until the rest is scored
        page.reload()
        page.locator("meter").first.wait_for()
        yield


PICTURES = (
    ("feed-page.png", 640, _feed),
    ("mlflow.png", 800, _mlflow),
    ("labelstudio.png", 560, _studio),
    ("notebook.png", 920, _plot),
)


def _only_here(route: Route) -> None:
    """Block requests to other hosts."""
    if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        route.continue_()
    else:
        route.abort()


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.screenshots",
        description="Take the screenshots of the docs: make a sample corpus, train on it, start"
        " the service, Label Studio, MLflow and JupyterLab, all in a temporary folder, and open"
        " each in headless Chromium.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/images"),
        metavar="DIR",
        help="folder to write to",
    )
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
