"""A Dask cluster: connecting to it, and sending work to its workers."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

from distributed import Client, Future, Worker, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker

from feedsieve.bulk.score_file import ClusterUnavailable
from train.compute import dask_launch

_log = logging.getLogger("feedsieve")

PARTS_PER_WORKER = 2  # one in progress, one queued
CONNECT_SECONDS = 10
RETURN_SECONDS = 60  # how long to wait for workers once all of them are gone
CHECK_SECONDS = 5  # between two checks that there are workers
Key = TypeVar("Key")


@contextmanager
def connect(where: str) -> Iterator[Client]:
    """Yield a client of a cluster.

    `tcp://HOST:PORT` (or another URL) is a running scheduler. What `dask_launch.start` reads is a
    cluster that starts here and ends with the block. Raises ClusterUnavailable.
    """
    starts = dask_launch.is_place(where)
    if not starts and "://" not in where:
        raise ClusterUnavailable(
            f"{where!r} is neither a scheduler's tcp://HOST:PORT nor one of {dask_launch.PLACES}"
        )
    logging.getLogger("distributed").setLevel(logging.WARNING)  # it logs every connection
    with _start(where) if starts else _connect_to_scheduler(where) as client:
        yield client


# Clients are never the default one: Feast uses Dask too, in its own process.
@contextmanager
def _connect_to_scheduler(url: str) -> Iterator[Client]:
    try:
        client = Client(url, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(f"no Dask scheduler answers at {url} ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise ClusterUnavailable(f"the Dask scheduler at {url} has no workers") from error
        yield client


@contextmanager
def _start(where: str) -> Iterator[Client]:
    cluster = dask_launch.start(where)
    try:
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1)
            yield client
    finally:
        try:
            cluster.close()
        except Exception as error:
            # Dask fails here while it is replacing a dead worker. Results are complete by now, or
            # an earlier error is more useful; the worker stops with this process.
            _log.debug("Dask did not stop its workers cleanly: %r", error)


class Broadcast:
    """A value that every worker holds, including workers that join later."""

    def __init__(
        self, client: Client, load: Callable[[Path], Any], folders: Mapping[str, Path] | None = None
    ) -> None:
        """Send the files of `folders`, under these names, to each worker.

        A worker calls `load` with their parent folder on first use; the result is the value.
        """
        self._client = client
        plugin = _Holder(load, folders or {})
        self.name = plugin.name
        client.register_plugin(plugin)

    def release(self) -> None:
        """Remove the value from the workers."""
        try:
            self._client.unregister_worker_plugin(self.name)
        except (OSError, RuntimeError, CancelledError) as error:  # the scheduler has stopped
            _log.debug("cannot remove %s from workers: %s", self.name, error)

    def map(
        self, function: Callable[[Any, Any], Any], work: Iterable[tuple[Key, Any]]
    ) -> Iterator[tuple[Key, Any]]:
        """Yield `key, function(part, value)` for each key and part of `work`, as they finish.

        `work` is read as workers need it. If a worker dies, another one takes over its part.
        Raises what `function` raises, and ClusterUnavailable if workers die of the same part
        several times, if all workers stay away, or if the scheduler stops.
        """
        remaining = iter(work)
        running: dict[Future, Key] = {}

        def submit() -> None:
            capacity = PARTS_PER_WORKER * max(1, count_workers(self._client))  # it varies
            for key, part in islice(remaining, max(0, capacity - len(running))):
                future = self._client.submit(_call, self.name, function, part, pure=False)
                running[future] = key

        submit()
        try:
            while running:
                for future in self._wait(running):
                    yield running.pop(future), future.result()
                    submit()
        except CancelledError as error:
            raise ClusterUnavailable("the Dask scheduler has stopped") from error
        except KilledWorker as error:
            raise ClusterUnavailable(f"a task made workers die several times: {error}") from error
        except ImportError as error:
            raise ClusterUnavailable(f"workers lack a dependency: {error}") from error

    def _wait(self, running: Iterable[Future]) -> set[Future]:
        """Return the futures that are done, at least one. Raises ClusterUnavailable."""
        last_seen = time.monotonic()
        while True:
            try:
                with self._client.as_current():  # `wait` uses the current client's event loop
                    return wait(list(running), CHECK_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                if count_workers(self._client):
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > RETURN_SECONDS:
                    raise ClusterUnavailable(
                        "all workers of the Dask scheduler have gone"
                    ) from None


def count_workers(client: Client) -> int:
    """Return the current number of workers."""
    return len(client.scheduler_info()["workers"])


class _Holder(WorkerPlugin):
    """Carries files to a worker, and loads them on first use."""

    def __init__(self, load: Callable[[Path], Any], folders: Mapping[str, Path]) -> None:
        self._load = load
        self._files = {
            f"{name}/{file.name}": file.read_bytes()
            for name, folder in folders.items()
            for file in folder.iterdir()
            if file.is_file()
        }
        self.name = f"feedsieve-{uuid4().hex}"  # unique, so that releasing it affects no other run
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
    def value(self) -> Any:
        assert self._folder is not None
        return self._load(Path(self._folder.name))


def _call(name: str, function: Callable[[Any, Any], Any], part: Any) -> Any:
    plugin: Any = get_worker().plugins[name]
    return function(part, plugin.value)
