"""Many processes or machines in place of one: Dask, started here or already running somewhere."""

import argparse
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker

from feedsieve import models
from feedsieve.bulk import NoEngine, Progress
from feedsieve.scorer import Label, Scorer
from feedsieve.tables import Part

_log = logging.getLogger("feedsieve")

PARTS_AHEAD = 2  # a worker: the one that it scores, and the one that it scores next
CONNECT_SECONDS = 10
RETURN_SECONDS = 60  # in which workers that are gone are there again
CHECK_SECONDS = 5  # after which it is looked whether there are any
Key = TypeVar("Key")
_HERE = re.compile(r"local:([1-9]\d{0,3})")


@contextmanager
def connect(where: str) -> Iterator[Client]:
    """Yield a client of the cluster that `where` names.

    `local:N` starts N processes of one thread each here and ends them afterwards; a URL
    (`tcp://HOST:PORT`, `tls://…`) is that of a scheduler, which runs on. Raises NoEngine.
    """
    here = _HERE.fullmatch(where)
    if not here and "://" not in where:
        raise NoEngine(f"{where!r} is neither local:N nor a scheduler's tcp://HOST:PORT")
    logging.getLogger("distributed").setLevel(logging.WARNING)  # it tells of every connection
    with ExitStack() as stack:
        if here:
            client = stack.enter_context(_processes(int(here[1])))
        else:
            try:
                client = stack.enter_context(
                    Client(where, timeout=CONNECT_SECONDS, set_as_default=False)
                )
            except (OSError, ValueError) as error:  # nobody there; no URL
                raise NoEngine(f"no Dask scheduler answers at {where} ({error})") from error
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError as error:
                raise NoEngine(f"the Dask scheduler at {where} has no workers") from error
        yield client


@contextmanager
def _processes(count: int) -> Iterator[Client]:
    options = {
        "threads_per_worker": 1,
        # Dask serves HTTP whatever is said. Any port, so that 8787 is left to `make cluster`.
        "dashboard_address": "127.0.0.1:0",
        "scheduler_kwargs": {"dashboard": False},
    }
    cluster = LocalCluster(n_workers=count, **options)
    try:
        # Not the default one: Feast computes with Dask too, in its own process.
        with Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        try:
            cluster.close()
        except Exception as error:
            # Dask trips over a worker that it is just starting in the place of one that died. What
            # was computed is there all the same, or what went wrong before says more; the worker
            # ends with this process.
            _log.debug("Dask did not end its workers in order: %r", error)


class Sent:
    """Something that every worker holds, one that comes later too, until they are to forget it."""

    def __init__(
        self, client: Client, load: Callable[[Path], Any], folders: Mapping[str, Path] | None = None
    ) -> None:
        """Send the files of `folders`, by the names that these are to have on a worker.

        What `load` makes of the folder that they are in is what a worker holds from its first
        call on.
        """
        self._client = client
        self._plugin = _Holding(load, folders or {})
        self.name = self._plugin.name
        client.register_plugin(self._plugin)

    def forget(self) -> None:
        """Let the workers forget it, unless the scheduler has ended."""
        try:
            self._client.unregister_worker_plugin(self.name)
        except (OSError, RuntimeError, CancelledError) as error:  # what went wrong before says more
            _log.debug("workers were not told to forget %s: %s", self.name, error)

    def call(
        self, function: Callable[[Any, Any], Any], work: Iterable[tuple[Key, Any]]
    ) -> Iterator[tuple[Key, Any]]:
        """Yield the key of each part of the work with `function(part, held)`, as they get done.

        `work` are keys and parts, and is read as workers need it. What a worker was at when it
        died another one does. Raises what `function` does, and NoEngine if workers die of the same
        part again and again, if all of them stay away, or if the cluster ends.
        """
        remaining = iter(work)
        sent: dict[Future, Key] = {}

        def send() -> None:
            most = PARTS_AHEAD * max(1, workers_of(self._client))  # they come and go
            while len(sent) < most:
                try:
                    key, part = next(remaining)
                except StopIteration:
                    return
                future = self._client.submit(_call, self.name, function, part, pure=False)
                sent[future] = key

        send()
        try:
            while sent:
                for future in self._done(sent):
                    yield sent.pop(future), future.result()
                    send()
        except CancelledError as error:
            raise NoEngine("the Dask scheduler has ended") from error
        except KilledWorker as error:
            raise NoEngine(f"workers died of it several times: {error}") from error
        except ImportError as error:
            raise NoEngine(f"workers lack what they need: {error}") from error

    def _done(self, sent: Iterable[Future]) -> set[Future]:
        """Wait for the next of them. Raises NoEngine if there are no workers and none come."""
        last_seen = time.monotonic()
        while True:
            try:
                with self._client.as_current():  # whose loop `wait` waits on
                    return wait(list(sent), CHECK_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                if workers_of(self._client):
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > RETURN_SECONDS:
                    raise NoEngine("all workers of the Dask scheduler have gone") from None


def workers_of(client: Client) -> int:
    """Return how many workers a cluster has now."""
    return len(client.scheduler_info()["workers"])


class ClusterScorer:
    """Scores parts on every worker of a cluster; a `feedsieve.bulk.Engine`.

    Workers are sent the pair of models once, and need no model store and no shared disk.
    """

    def __init__(self, client: Client, tag: str, *, cascade: bool = True) -> None:
        """Send the pair that `tag` names to the workers; `cascade` as for `Scorer`.

        Raises NoModel.
        """
        self._scorer = models.load_scorer(tag, threads=1)  # a damaged one is better known here
        classifier, encoder = models.find_pair(tag)
        folders = {"encoder": models.folder(encoder), "classifier": models.folder(classifier)}
        self._pair = Sent(client, partial(_load_pair, classifier, cascade), folders)
        self.model = classifier
        self.cascade = cascade and self._scorer.cascade is not None

    def close(self) -> None:
        """Let the workers forget the models."""
        self._pair.forget()

    def label(self, score: float) -> Label:
        """Return the decision that a score means."""
        return self._scorer.label(score)

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        """Yield each part with its scores as workers get done.

        What a worker was at when it died another one scores. Raises NoEngine if workers die
        of the same part again and again.
        """
        for part, scores in self._pair.call(_score, ((part, part.texts) for part in parts)):
            yield part, scores
            progress(len(part.texts))


@contextmanager
def scoring(where: str, tag: str, *, cascade: bool = True) -> Iterator[ClusterScorer]:
    """Yield a scorer on the cluster that `where` names. Raises NoEngine and NoModel."""
    with connect(where) as client:
        scorer = ClusterScorer(client, tag, cascade=cascade)
        try:
            yield scorer
        finally:
            scorer.close()


class _Holding(WorkerPlugin):
    """Takes files to a worker, which loads them when it first needs them."""

    def __init__(self, load: Callable[[Path], Any], folders: Mapping[str, Path]) -> None:
        self._load = load
        self._files = {
            f"{name}/{file.name}": file.read_bytes()
            for name, folder in folders.items()
            for file in folder.iterdir()
            if file.is_file()
        }
        self.name = f"feedsieve-{uuid4().hex}"  # one's own: it goes when its run ends
        self._folder: TemporaryDirectory[str] | None = None

    def setup(self, worker: Worker) -> None:
        self._folder = TemporaryDirectory(prefix="feedsieve-", dir=worker.local_directory)
        for name, content in self._files.items():
            file = Path(self._folder.name) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        self._files = {}

    def teardown(self, worker: Worker) -> None:
        if self._folder:
            self._folder.cleanup()

    @cached_property
    def held(self) -> Any:
        assert self._folder is not None
        return self._load(Path(self._folder.name))


def _call(name: str, function: Callable[[Any, Any], Any], part: Any) -> Any:
    plugin: Any = get_worker().plugins[name]
    return function(part, plugin.held)


def _load_pair(model: str, cascade: bool, folder: Path) -> Scorer:
    return models.load_pair(
        folder / "encoder", folder / "classifier", model, threads=1, cascade=cascade
    )


def _score(texts: list[str], scorer: Scorer) -> np.ndarray:
    return scorer.score(texts)


def main() -> int:
    """Run a scheduler and workers here until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m train.cluster",
        description="Start a Dask scheduler and workers on this machine, and run them until"
        " interrupted. Whoever reaches the port can run code here: keep it on a trusted network.",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
    parser.add_argument("--port", type=int, default=8786, help="(%(default)s)")
    parser.add_argument("--dashboard", type=int, default=8787, help="port (%(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells let what runs in the background ignore
        signal.signal(number, signal.default_int_handler)  # the first one
    with LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        host=options.host,
        scheduler_port=options.port,
        dashboard_address=f"{options.host}:{options.dashboard}",
    ) as cluster:
        print(f"scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}")
        print(f"use it with --cluster {cluster.scheduler_address}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
