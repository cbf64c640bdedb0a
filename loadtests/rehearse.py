"""`python -m loadtests.rehearse`: the README's way from a chat dump to a served model."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score
from tqdm import tqdm

from feedsieve.command import run_command
from feedsieve.errors import first_few, quote
from feedsieve.store.store import MessageStore
from labeling import server
from labeling.batch import read_batch
from loadtests.harness.processes import BENTOML, ProgramFailed, bento, free_port, running
from train.data.labelled import read_labeled

CHOICES = {0: "negative", 1: "positive"}
READY_WITHIN = 600.0  # seconds; Label Studio creates its database at its first start
TEXTS_A_REQUEST = 256  # limit of /score


class Rehearsal:
    """One rehearsal: its files in one folder, and the environment of its commands."""

    def __init__(self, folder: Path, known: pd.DataFrame) -> None:
        """Create the folder. `known` has the columns msg_id, msg, label and subset."""
        self.folder, self.known = folder.resolve(), known
        self.labeled = self.folder / "labeled_messages.csv"
        self.environment = os.environ | {
            "FEEDSIEVE_DB": str(self.folder / "messages.db"),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
        }
        (self.folder / "bentoml").mkdir(parents=True)
        self.test = known[known["subset"] == "test"]
        self.test[["msg_id", "msg", "label", "subset"]].to_csv(
            self.labeled, index=False, lineterminator="\r\n"
        )

    def rehearse(self, dump: Path, labels: int, by: str, count: int) -> tuple[float, float]:
        """Import, label, train and serve; return F1 and average precision on the test subset."""
        self._run("feedsieve", "import", dump)
        self._check_labels()
        with self._studio() as (url, token):
            while (done := self.count()) < labels:
                self._label_batch(url, token, by, min(count, labels - done))
                if self.count() == done:
                    print("there is nothing left to label")
                    break
                if by == "model" or self.count() >= labels:
                    report = self.folder / "reports" / str(self.count())
                    self._run("python -m train", "--data", self.labeled, "--report", report)
        print("\n$ bentoml serve service:Feedsieve &", flush=True)
        with bento(self.folder / "server.log", self.environment) as service:
            answers = list(_score(service.url, self.test["msg"].tolist()))
        truth, scores = self.test["label"].to_numpy(), [each["score"] for each in answers]
        decisions = [each["label"] == CHOICES[1] for each in answers]
        return f1_score(truth, decisions), average_precision_score(truth, scores)

    def count(self) -> int:
        """Return the number of labelled messages."""
        return len(pd.read_csv(self.labeled, dtype=str)) - len(self.test)

    def _run(self, command: str, *arguments: str | Path) -> None:
        """Print a command and run it in this environment."""
        name, *words = [*command.split(), *map(str, arguments)]
        print(f"\n$ {shlex.join([name, *words])}", flush=True)
        program = sys.executable if name == "python" else str(BENTOML.with_name(name))
        if subprocess.run([program, *words], env=self.environment, check=False).returncode:
            raise ProgramFailed(f"{shlex.join([name, *words])} failed")

    def _check_labels(self) -> None:
        messages = MessageStore.open(self.environment["FEEDSIEVE_DB"]).read_all()
        unknown = {message.id for message in messages} - set(self.known["msg_id"])
        if unknown:
            counts = f"{len(unknown):,} of {len(messages):,} messages have no label"
            raise ValueError(f"{counts}: {first_few([quote(name) for name in sorted(unknown)])}")

    def _label_batch(self, url: str, token: Path, by: str, count: int) -> None:
        """Choose messages, push them to Label Studio, label them there, and pull the labels."""
        batch, address = self.folder / "batch.csv", ("--url", url, "--token", token)
        files = ("--labeled", self.labeled, "--out", batch, "--force")
        self._run("python -m labeling.next", *files, "--by", by, "--count", str(count))
        self._run("python -m labeling push", batch, *address)
        # Label Studio's SDK takes seconds to import.
        from labeling.push import TITLE
        from labeling.studio import Studio

        studio = Studio.open(url, token)
        project = studio.find(TITLE)
        assert project is not None  # push has created it
        chosen = {item.msg_id for item in read_batch(batch)}
        labels = dict(zip(self.known["msg_id"], self.known["label"], strict=True))
        tasks = [task for task in studio.tasks(project) if task.msg_id in chosen]
        for task in tqdm(tasks, "label", unit=" messages"):
            studio.label(task.number, CHOICES[labels[task.msg_id]])
        self._run("python -m labeling pull", self.labeled, *address)

    @contextmanager
    def _studio(self) -> Iterator[tuple[str, Path]]:
        """Yield the URL and the token file of a new Label Studio."""
        port, data = str(free_port()), self.folder / ".labelstudio"
        arguments = ["-m", "labeling.server", "--port", port, "--data", str(data)]
        print(f"\n$ {shlex.join(['python', *arguments])} &", flush=True)
        url, log = f"http://127.0.0.1:{port}", self.folder / "label-studio.log"
        command = [sys.executable, *arguments]
        with running(command, f"{url}/health", log, self.environment, READY_WITHIN):
            yield url, data / server.TOKEN_FILE


def _score(url: str, texts: Sequence[str]) -> Iterator[dict]:
    for start in range(0, len(texts), TEXTS_A_REQUEST):
        body = {"texts": texts[start : start + TEXTS_A_REQUEST]}
        try:
            response = httpx.post(f"{url}/score", json=body, timeout=READY_WITHIN)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise ProgramFailed(f"{url}/score: {error}") from error
        yield from response.json()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.rehearse",
        description="Go from a chat dump to a served model by the commands of the README: import,"
        " choose, label in a new Label Studio, pull, train, serve. Known labels stand in for the"
        " person. The subset test is not labelled, but tests the server at the end.",
    )
    add = parser.add_argument
    add("--messages", type=Path, required=True, metavar="MESSAGES.db", help="chat dump to import")
    add("--known", type=Path, required=True, metavar="LABELED.csv", help="msg_id,msg,label,subset")
    add("--work", type=Path, required=True, metavar="DIR", help="new folder for all files")
    add("--labels", type=int, default=2000, help="number of labels (%(default)s)")
    add("--by", choices=("time", "model"), default="time", help="as labeling.next (%(default)s)")
    add("--count", type=int, help="labels a round (by time all in one, by model 200)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the servers, too
    return run_command("loadtests.rehearse", lambda: _run(options), options.known)


def _run(options: argparse.Namespace) -> None:
    known = read_labeled(options.known)
    if "subset" not in known or not (known["subset"] == "test").any():
        raise ValueError("no message is of the subset test, so there is nothing to test on")
    rehearsal, started = Rehearsal(options.work, known), time.monotonic()
    count = options.count or (200 if options.by == "model" else options.labels)
    f1, precision = rehearsal.rehearse(options.messages, options.labels, options.by, count)
    minutes, tested = (time.monotonic() - started) / 60, len(rehearsal.test)
    print(f"\n{rehearsal.count():,} labels, chosen by {options.by}; {minutes:.0f} minutes in all")
    figures = f"F1 {f1:.3f}, average precision {precision:.3f}"
    print(f"the server on {tested:,} messages of the test subset: {figures}")


if __name__ == "__main__":
    sys.exit(main())
