"""`python -m deploy.image.check`: check a container image without an engine, as root with buildah.

buildah has no read-only root with its isolation `chroot`, so the image is mounted, made read-only
and entered by `unshare` and `chroot`. Its processes share network and process ids with this
machine.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError
from loadtests.harness.processes import free_port

LARGEST = 450  # MB above the base
READY_WITHIN = 180.0  # seconds
EXIT_WITHIN = 30.0
BACKENDS = "", "onnxruntime-f32"  # that of the CPU, and the one that runs everywhere
CLIENTS = 16
TEXTS_A_REQUEST = 100
TEXTS = (
    "Сдаётся квартира 2+1 в Лимассоле, центр, 1200 евро в месяц",
    "Всем привет!",
    "",
    "1 500 €",
)
# Mounts are this process's own, and end with it.
ENTER = """
set -e
mount --bind "$1" "$1"
mount --bind "$2" "$1/data"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
touch "$1/etc/hosts"
mount --bind /etc/hosts "$1/etc/hosts" # as engines do
mount -o remount,ro,bind "$1"
root=$1; user=$3; shift 3
exec chroot --userspec="$user:0" "$root" "$@"
"""


class ImageRejected(FeedsieveError):
    """The image breaks a requirement; the message says which."""


def buildah(*arguments: str) -> str:
    """Return the output of a buildah command. Raises ImageRejected."""
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ImageRejected(f"buildah {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """Yield the root of a new container of an image, which is removed afterwards."""
    container = buildah("from", "--pull-never", image)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


def megabytes(root: Path) -> float:
    """Return the size of all files below `root` in MB."""
    size = subprocess.run(["du", "-sx", "-B1", root], capture_output=True, text=True, check=True)
    return int(size.stdout.split()[0]) / 1e6


class Container:
    """A running container of the image: its address, process and user."""

    def __init__(self, root: Path, volume: Path, config: Mapping[str, Any], *more: str) -> None:
        """Start it with the variables `more`, as a random user of group 0."""
        self.root, self.volume, self.user = root, volume, random.randint(10_000, 2_000_000)
        self.port = free_port()
        self._variables = [*config["Env"], f"BENTOML_PORT={self.port}", *more]
        os.chown(volume, -1, 0)
        volume.chmod(0o2770)
        self.log = volume.parent / f"{volume.name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self._enter(config["Entrypoint"]), stdout=output, stderr=output
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def _enter(self, command: Sequence[str]) -> list[str]:
        inside = ["env", "-i", "-C", "/data", *self._variables, *command]
        namespace = ["unshare", "--mount", "sh", "-c", ENTER, "enter"]
        return [*namespace, str(self.root), str(self.volume), str(self.user), *inside]

    def run(self, *command: str) -> int:
        """Run a command in a process of its own, and return its exit code."""
        return subprocess.run(self._enter(command), capture_output=True).returncode

    def wait_until_ready(self) -> float:
        """Return the seconds until the image's health check passes. Raises ImageRejected."""
        started = time.monotonic()
        while self.run("python", "/app/ready.py"):
            if self.process.poll() is not None or time.monotonic() - started > READY_WITHIN:
                raise ImageRejected(f"it does not become ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.5)
        return time.monotonic() - started

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the scores of texts."""
        scores: list[float] = []
        for start in range(0, len(texts), TEXTS_A_REQUEST):
            body = {"texts": texts[start : start + TEXTS_A_REQUEST]}
            answer = self.client.post("/score", json=body).raise_for_status()
            scores += [row["score"] for row in answer.json()]
        return scores

    def stop_under_load(self, seconds: float) -> tuple[Counter[str], float]:
        """Send SIGTERM under load; return the number of answers by kind, and seconds to the exit.

        A request is lost if it was sent on an open connection and not answered. Connections that
        are refused after the signal are not counted: a balancer sends those elsewhere.
        """
        counts: Counter[str] = Counter()
        ended = threading.Event()
        clients = [
            threading.Thread(target=self._load, args=(counts, ended)) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(seconds)
        sent = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(EXIT_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            counts["killed"] += 1
        took = time.monotonic() - sent
        ended.set()
        for client in clients:
            client.join()
        return counts, took

    def _load(self, counts: Counter[str], ended: threading.Event) -> None:
        with httpx.Client(base_url=self.client.base_url, timeout=60) as client:
            while not ended.is_set():
                try:
                    text = f"Сдаётся квартира {random.random()}"
                    status = client.post("/score", json={"texts": [text]}).status_code
                    counts[str(status)] += 1
                except httpx.ConnectError:
                    return
                except httpx.TransportError:
                    counts["lost"] += 1


def check_metadata(config: Mapping[str, Any]) -> None:
    """Raise ImageRejected if user, volume, health check or labels are missing."""
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    missing = {"title", "version", "revision", "licenses", "source"} - labels.keys()
    if missing:
        raise ImageRejected(f"it has no labels {sorted(missing)}")
    if config["User"].partition(":")[0] in ("", "0", "root"):
        raise ImageRejected("it runs as root")
    if list(config["Volumes"]) != ["/data"] or not config.get("Healthcheck"):
        raise ImageRejected("it has no volume /data or no health check")


def checkout_scores(texts: Sequence[str], model: str, backend: str) -> list[float]:
    """Return the scores of texts by `feedsieve score` in this checkout."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, "out.csv")
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "msg"], *enumerate(texts)])
        own = os.environ | {"FEEDSIEVE_MODEL": model, "FEEDSIEVE_BACKEND": backend}
        command = [sys.executable, "-m", "feedsieve", "score", str(source), str(target)]
        subprocess.run(command, env=own, check=True)
        with target.open(newline="", encoding="utf-8") as file:
            return [float(row["score"]) for row in csv.DictReader(file)]


def largest_difference(container: Container, texts: Sequence[str]) -> tuple[float, str]:
    """Return the largest difference to the checkout's scores, and the backend of both."""
    version = container.client.get("/version").json()
    backend = version["backend"]["backend"]
    expected = checkout_scores(texts, version["model"], backend)
    found = container.score(texts)
    return max(abs(one - two) for one, two in zip(found, expected, strict=True)), backend


def check(image: str, base: str, texts: Sequence[str], seconds: float) -> None:
    """Print what is measured. Raises ImageRejected if a requirement is broken."""
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    check_metadata(config)
    print(f"labels: {config['Labels']}")
    with mounted(image) as root, mounted(base) as base_root:
        above = megabytes(root) - megabytes(base_root)
        print(f"size: {megabytes(root):.0f} MB, {above:.0f} above the base, at most {LARGEST}")
        lost = sum(check_start(root, config, backend, texts, seconds) for backend in BACKENDS)
    if above > LARGEST:
        raise ImageRejected(f"it is {above:.0f} MB above the base, at most {LARGEST} are allowed")
    if lost:
        raise ImageRejected(f"{lost} requests were lost at SIGTERM")


def check_start(
    root: Path, config: Mapping[str, Any], backend: str, texts: Sequence[str], seconds: float
) -> int:
    """Start, score and stop a container; return the number of lost requests.

    Without a `backend` the server chooses one. Raises ImageRejected.
    """
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder, "volume")
        volume.mkdir()
        container = Container(root, volume, config, f"FEEDSIEVE_BACKEND={backend}")
        took = container.wait_until_ready()
        print(f"ready after {took:.1f} s as user {container.user}, group 0, on a read-only root")
        commit = container.client.get("/version").json()["commit"]
        difference, used = largest_difference(container, texts)
        print(f"{used}: scores of {len(texts)} texts differ by at most {difference:.1e}")
        counts, took = container.stop_under_load(seconds)
    code = container.process.returncode
    print(f"SIGTERM with {CLIENTS} clients: {dict(counts)}, exit {code} after {took:.1f} s")
    if difference > 1e-5:  # the file has six decimals
        raise ImageRejected(f"scores differ from the checkout's by {difference}")
    if commit != (config["Labels"]["org.opencontainers.image.revision"] or None):
        raise ImageRejected(f"/version says it is of commit {commit}, its label says another")
    if code:
        raise ImageRejected(f"it exits with {code} at SIGTERM")
    return counts["lost"]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image.check",
        description="Check an image in buildah's store, as root: labels, size, a start as a random"
        " user on a read-only root, scores like the checkout's, SIGTERM under load. BENTOML_HOME"
        " has the model that the image has.",
    )
    add = parser.add_argument
    add("--image", default="localhost/feedsieve:latest", help="(%(default)s)")
    add("--base", default="docker.io/library/python:3.11-slim", help="(%(default)s)")
    add("--texts", type=Path, metavar="CSV", help="score the column msg of this file")
    add("--seconds", type=float, default=10.0, help="load before SIGTERM (%(default)s)")
    options = parser.parse_args()
    texts = list(TEXTS)
    if options.texts:
        with options.texts.open(newline="", encoding="utf-8") as file:
            texts = [row["msg"] for row in csv.DictReader(file)]
    return run_command(
        "deploy.image.check",
        lambda: check(options.image, options.base, texts, options.seconds),
    )


if __name__ == "__main__":
    sys.exit(main())
