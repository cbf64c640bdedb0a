"""Training on a Dask cluster: workers embed, compute features, fit folds, share one booster."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array
import lightgbm
import numpy as np
from distributed import Client
from distributed.scheduler import KilledWorker

from feedsieve.bulk.score_file import ClusterUnavailable, Progress
from feedsieve.scoring.encoder import Encoder
from train.compute.base import Compute
from train.compute.dask_cluster import RETURN_SECONDS, Broadcast, connect, count_workers

TEXTS_PER_PART = 64  # one or two seconds of work; sending a part takes milliseconds
# Each worker bins some of the columns by its own rows alone.
MIN_ROWS_PER_WORKER = 500
ATTEMPTS = 3  # at fitting the booster; a worker that dies loses its rows
TIMEOUT_MINUTES = 10  # for a machine that vanished without closing its connections
# First words of LightGBM's errors if a worker is gone, or another program took its port
_NETWORK_FAILURES = ("Socket", "Connecting to rank", "Binding port")
_ADDRESSES = re.compile(r"\[(?:machines|num_machines|local_listen_port|time_out): .*\]\n")


class ClusterEncoder(Encoder):
    """An encoder that runs on the workers, single-threaded."""

    def __init__(self, client: Client, folder: Path) -> None:
        """Send the encoder in `folder` to the workers. Raises what `Encoder` raises."""
        super().__init__(folder, threads=1)
        self._broadcast = Broadcast(client, _load_encoder, {"encoder": folder})

    def release(self) -> None:
        """Remove the encoder from the workers."""
        self._broadcast.release()

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Return what `Encoder.encode` returns, bit for bit with int8.

        With fp32 the last bits may differ: the order of summation depends on the batch size.
        Raises ClusterUnavailable.
        """
        embeddings = np.empty((len(texts), self.description.dimension), np.float32)
        starts = range(0, len(texts), TEXTS_PER_PART)
        work = ((start, list(texts[start : start + TEXTS_PER_PART])) for start in starts)
        for start, rows in self._broadcast.map(_encode, work):
            embeddings[start : start + len(rows)] = rows
            if progress:
                progress(len(rows))
        return embeddings


class ClusterCompute(Compute):
    """Runs steps of training on the workers of a cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._encoders = ExitStack()
        logger = logging.getLogger("lightgbm")  # by default it prints amid progress bars
        logger.setLevel(logging.ERROR)
        lightgbm.register_logger(logger)

    def close(self) -> None:
        """Remove the encoders from the workers."""
        self._encoders.close()

    @property
    def processes(self) -> int:
        return max(1, count_workers(self._client))

    def encoder(self, exported: Encoder, folder: Path) -> Encoder:
        encoder = ClusterEncoder(self._client, folder)
        self._encoders.callback(encoder.release)
        return encoder

    def map(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        shared: Sequence[Any] = (),
        progress: Progress = lambda _done: None,
    ) -> list[Any]:
        results: dict[int, Any] = {}
        arguments = Broadcast(self._client, partial(_return, tuple(shared)))
        try:
            for number, result in arguments.map(partial(_apply, function), enumerate(items)):
                results[number] = result
                progress(1)
        finally:
            arguments.release()
        return [results[number] for number in range(len(items))]

    def boost(
        self,
        parameters: Mapping[str, Any],
        columns: np.ndarray,
        labels: np.ndarray,
        start: np.ndarray | None,
        rounds: int,
    ) -> lightgbm.Booster:
        """Fit by LightGBM's distributed training: workers share the rows and merge histograms.

        If a worker dies, fitting restarts on the workers that are left or came back.
        """
        for _attempt in range(ATTEMPTS):
            self._wait_for_worker()
            workers = sorted(self._client.scheduler_info()["workers"])
            workers = workers[: max(1, len(labels) // MIN_ROWS_PER_WORKER)]
            try:
                return self._boost(workers, parameters, columns, labels, start, rounds)
            except (CancelledError, KilledWorker, OSError) as error:
                failure: Exception = error
            except lightgbm.basic.LightGBMError as error:
                if not str(error).startswith(_NETWORK_FAILURES):  # would fail again
                    raise ClusterUnavailable(f"LightGBM failed on the workers: {error}") from error
                failure = error
            self._leave_network(workers)
        raise ClusterUnavailable(
            f"LightGBM failed {ATTEMPTS} times on the workers: {failure}"
        ) from failure

    def _wait_for_worker(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=RETURN_SECONDS)
        except TimeoutError as error:
            raise ClusterUnavailable("all workers of the Dask scheduler have gone") from error

    def _leave_network(self, workers: Sequence[str]) -> None:
        """Make living workers leave LightGBM's network: it would reuse the one that lost a peer."""
        alive = set(workers) & self._client.scheduler_info()["workers"].keys()
        rows = lightgbm.Dataset(np.eye(2), [0, 1], params={"verbosity": -1})
        any_booster = lightgbm.Booster({"verbosity": -1}, rows).model_to_string()
        freed = [
            self._client.submit(_free_network, any_booster, workers=[worker], pure=False)
            for worker in alive
        ]
        for future in freed:
            with suppress(Exception):  # a worker that dies now has left as well
                future.result(RETURN_SECONDS)

    def _boost(
        self,
        workers: Sequence[str],
        parameters: Mapping[str, Any],
        columns: np.ndarray,
        labels: np.ndarray,
        start: np.ndarray | None,
        rounds: int,
    ) -> lightgbm.Booster:
        # Shuffle: messages of one chat are adjacent, and each worker needs a random sample.
        order = np.random.default_rng(parameters.get("seed")).permutation(len(labels))
        shares = list(zip(np.array_split(order, len(workers)), workers, strict=True))

        def distribute(values: np.ndarray) -> dask.array.Array:
            return dask.array.concatenate(
                [
                    dask.array.from_delayed(
                        dask.delayed(
                            self._client.scatter(values[rows], workers=[worker], hash=False)
                        ),
                        (len(rows), *values.shape[1:]),
                        values.dtype,
                    )
                    for rows, worker in shares
                ]
            )

        # Not a classifier: on a worker with a single label that would encode label 1 as 0. The
        # objective is binary all the same.
        model = lightgbm.DaskLGBMRegressor(
            client=self._client,
            n_estimators=rounds,
            time_out=TIMEOUT_MINUTES,
            **{name: value for name, value in parameters.items() if name != "num_threads"},
        )
        with self._client.as_current():  # LightGBM uses the current client
            model.fit(
                distribute(columns),
                distribute(labels),
                init_score=None if start is None else distribute(start),
            )
        text = model.booster_.model_to_string()
        return lightgbm.Booster(model_str=_ADDRESSES.sub("", text))  # must not leak into the model


@contextmanager
def computing_on(where: str) -> Iterator[ClusterCompute]:
    """Yield the cluster at `where`. Raises ClusterUnavailable."""
    with connect(where) as client:
        compute = ClusterCompute(client)
        try:
            yield compute
        finally:
            compute.close()


def _free_network(booster: str) -> None:
    lightgbm.Booster(model_str=booster).free_network()


def _load_encoder(folder: Path) -> Encoder:
    return Encoder(folder / "encoder", threads=1)


def _encode(texts: list[str], encoder: Encoder) -> np.ndarray:
    return encoder.encode(texts)


def _return(shared: tuple[Any, ...], _folder: Path) -> tuple[Any, ...]:
    return shared


def _apply(function: Callable[..., Any], item: Any, shared: tuple[Any, ...]) -> Any:
    return function(item, *shared)
