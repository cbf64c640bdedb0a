"""`python -m labeling.rehearse`: from a chat dump to a served model, by the commands of the README.

The person is played by known labels, which are given over Label Studio's API, one after the other.
Messages whose known label says `subset` test are set aside: nobody labels them, nor what is nearly
the same, and what the server in the end says of them is the result.
"""

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

from feedsieve.store import MessageStore
from labeling import server
from labeling.batch import BadBatch, read_batch
from labeling.push import TITLE
from labeling.studio import Studio, StudioUnavailable
from train.data import InvalidData, read_labeled
from train.failures import in_one_line
from train.servers import NoAnswer, free_port, running
from train.validation import quote, some

CHOICES = {0: "negative", 1: "positive"}
READY_WITHIN = 600.0  # seconds; Label Studio makes its database on the first start
_TEXTS_AT_ONCE = 256  # that /score takes
_BIN = Path(sys.executable).parent


class CommandFailed(RuntimeError):
    """One of the commands failed; it has said why."""


class Rehearsal:
    """Files and environment of one rehearsal, all below one folder."""

    def __init__(self, folder: Path, known: pd.DataFrame) -> None:
        """`known` has `msg_id`, `msg`, `label` and `subset`; those of the test part are kept."""
        self.folder = folder.resolve()
        self.known = known
        self.labeled = self.folder / "labeled_messages.csv"
        self.batch = self.folder / "batch.csv"
        self.environment = os.environ | {
            "FEEDSIEVE_DB": str(self.folder / "messages.db"),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
        }
        (self.folder / "bentoml").mkdir(parents=True)
        self.test = known[known["subset"] == "test"]
        self.test[["msg_id", "msg", "label", "subset"]].to_csv(self.labeled, index=False)

    def run(self, *command: str | Path) -> None:
        """Run a command of this environment as a person would, after showing it."""
        words = [str(word) for word in command]
        print(f"\n$ {shlex.join(words)}", flush=True)
        program = sys.executable if words[0] == "python" else str(_BIN / words[0])
        arguments = [program, *words[1:]]
        if subprocess.run(arguments, env=self.environment, check=False).returncode:
            raise CommandFailed(f"{shlex.join(words)} failed")

    def label(self, studio: Studio) -> None:
        """Give every message of the batch its known label, in Label Studio."""
        project = studio.find(TITLE)
        assert project is not None  # it was just pushed to
        asked = {item.msg_id for item in read_batch(self.batch)}
        label = dict(zip(self.known["msg_id"], self.known["label"], strict=True))
        tasks = [task for task in studio.tasks(project) if task.msg_id in asked]
        for task in tqdm(tasks, "label", unit=" messages"):
            studio.label(task.number, CHOICES[label[task.msg_id]])

    def check(self) -> None:
        """Raise ValueError if there are messages of which nobody knows the label."""
        messages = MessageStore.open(self.environment["FEEDSIEVE_DB"]).read_all()
        unknown = {message.id for message in messages} - set(self.known["msg_id"])
        if unknown:
            raise ValueError(
                f"{len(unknown):,} of {len(messages):,} messages have no label: "
                f"{some([quote(name) for name in sorted(unknown)])}"
            )

    def count(self) -> int:
        """Return how many messages have been labelled."""
        return len(pd.read_csv(self.labeled, dtype=str)) - len(self.test)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yield the URL of the service with the newest model, ended with the block."""
        port = free_port()
        command = [str(_BIN / "bentoml"), "serve", "service:Feedsieve", "--port", str(port)]
        with self._serving(command, port, "/readyz") as url:
            yield url

    @contextmanager
    def studio(self) -> Iterator[tuple[str, Path]]:
        """Yield the URL and the token file of a Label Studio of its own."""
        port, data = free_port(), self.folder / ".labelstudio"
        command = [sys.executable, "-m", "labeling.server", "--port", str(port)]
        with self._serving([*command, "--data", str(data)], port, "/health") as url:
            yield url, data / server.TOKEN_FILE

    @contextmanager
    def _serving(self, command: Sequence[str], port: int, ready: str) -> Iterator[str]:
        print(f"\n$ {shlex.join(command)} &", flush=True)
        url, log = f"http://127.0.0.1:{port}", self.folder / f"server-{port}.log"
        with running(command, f"{url}{ready}", log, self.environment, READY_WITHIN):
            yield url


def rehearse(
    rehearsal: Rehearsal, dump: Path, labels: int, by: str, count: int
) -> dict[str, float]:
    """Go the way of the README from `dump` to a served model; return its figures on the test part.

    Raises CommandFailed, NoAnswer, StudioUnavailable, and ValueError for messages without a known
    label.
    """
    rehearsal.run("feedsieve", "import", dump)
    rehearsal.check()
    with rehearsal.studio() as (url, token):
        where = ("--url", url, "--token", token)
        studio = Studio.open(url, token)
        while (done := rehearsal.count()) < labels:
            files = ("--labeled", rehearsal.labeled, "--out", rehearsal.batch, "--force")
            size = str(min(count, labels - done))
            rehearsal.run("python", "-m", "labeling.next", *files, "--by", by, "--count", size)
            rehearsal.run("python", "-m", "labeling", "push", rehearsal.batch, *where)
            rehearsal.label(studio)
            rehearsal.run("python", "-m", "labeling", "pull", rehearsal.labeled, *where)
            if rehearsal.count() == done:
                print("there is nothing left to label")
                break
            if by == "model" or rehearsal.count() >= labels:
                report = rehearsal.folder / "reports" / str(rehearsal.count())
                rehearsal.run(
                    *("python", "-m", "train", "--data", rehearsal.labeled, "--report", report)
                )
    with rehearsal.serving() as url:
        scored = list(_score(url, rehearsal.test["msg"].tolist()))
    truth = rehearsal.test["label"].to_numpy()
    return {
        "labels": rehearsal.count(),
        "F1": f1_score(truth, [each["label"] == CHOICES[1] for each in scored]),
        "average precision": average_precision_score(truth, [each["score"] for each in scored]),
    }


def _score(url: str, texts: Sequence[str]) -> Iterator[dict]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = {"texts": texts[start : start + _TEXTS_AT_ONCE]}
        answer = httpx.post(f"{url}/score", json=part, timeout=READY_WITHIN)
        answer.raise_for_status()
        yield from answer.json()


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers, too
    failures = (InvalidData, BadBatch, StudioUnavailable, CommandFailed, NoAnswer, httpx.HTTPError)
    return in_one_line("labeling.rehearse", lambda: _run(options), failures, options.known)


def _run(options: argparse.Namespace) -> None:
    known = read_labeled(options.known)
    if "subset" not in known or not (known["subset"] == "test").any():
        raise ValueError("no message is of the subset test, so there is nothing to be judged on")
    rehearsal = Rehearsal(options.work, known)
    began = time.monotonic()
    count = options.count or (200 if options.by == "model" else options.labels)
    figures = rehearse(rehearsal, options.messages, options.labels, options.by, count)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{figures['labels']:,} labels, chosen by {options.by}; {minutes:.0f} minutes in all")
    print(
        f"the server on {len(rehearsal.test):,} messages of the test part: F1 {figures['F1']:.3f}, "
        f"average precision {figures['average precision']:.3f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.rehearse",
        description="Go from a chat dump to a served model by the commands of the README: import,"
        " choose, label in a Label Studio of its own, pull, train, serve. Known labels stand in"
        " for the person; the subset test is set aside and judged in the end.",
    )
    parser.add_argument(
        "--messages",
        type=Path,
        required=True,
        metavar="MESSAGES.db",
        help="what is imported",
    )
    parser.add_argument(
        "--known", type=Path, required=True, metavar="LABELED.csv", help="msg_id,msg,label,subset"
    )
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="a new folder for all that is made"
    )
    parser.add_argument("--labels", type=int, default=2000, help="how many (%(default)s)")
    parser.add_argument(
        "--by", choices=("time", "model"), default="time", help="as labeling.next (%(default)s)"
    )
    parser.add_argument(
        "--count", type=int, help="labels a round (all at once by time, 200 by model)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
