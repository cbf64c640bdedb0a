"""Training on a cluster: workers embed, compute features, fit folds, and share the last booster."""

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

from feedsieve.bulk import NoEngine, Progress
from feedsieve.encoder import Encoder
from train.cluster import RETURN_SECONDS, Sent, connect, workers_of
from train.compute import Compute

TEXTS_A_PART = 64  # a second or two of a worker; sending a part takes milliseconds
# Each worker finds the bins of some columns in its own rows, and needs enough of them for that.
FEWEST_ROWS = 500  # a worker
ATTEMPTS = 3  # to fit the booster; workers that die take their rows along
SILENT_MINUTES = 10  # after which a machine is given up; nobody closes its connections
# Beginnings of LightGBM's messages when a worker is gone, or its port was taken by another program
_NETWORK_FAILURES = ("Socket", "Connecting to rank", "Binding port")
_ADDRESSES = re.compile(r"\[(?:machines|num_machines|local_listen_port|time_out): .*\]\n")


class ClusterEncoder(Encoder):
    """An encoder whose texts are embedded by workers, with one thread each."""

    def __init__(self, client: Client, folder: Path) -> None:
        """Send the encoder in `folder` to the workers. Raises what `Encoder` raises."""
        super().__init__(folder, threads=1)
        self._sent = Sent(client, _load_encoder, {"encoder": folder})

    def forget(self) -> None:
        """Let the workers forget the encoder."""
        self._sent.forget()

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Return what `Encoder.encode` returns.

        With 8 bits it is the same to the last bit. With 32 it may differ in the last few, where an
        engine sums products of batches of another size in another order. Raises NoEngine.
        """
        embeddings = np.empty((len(texts), self.description.dimension), np.float32)
        starts = range(0, len(texts), TEXTS_A_PART)
        work = ((start, list(texts[start : start + TEXTS_A_PART])) for start in starts)
        for start, rows in self._sent.call(_encode, work):
            embeddings[start : start + len(rows)] = rows
            if progress:
                progress(len(rows))
        return embeddings


class ClusterCompute(Compute):
    """The workers of a cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._encoders = ExitStack()
        logger = logging.getLogger("lightgbm")  # else it prints of ports among our bars
        logger.setLevel(logging.ERROR)
        lightgbm.register_logger(logger)

    def close(self) -> None:
        """Let the workers forget what they were sent."""
        self._encoders.close()

    @property
    def processes(self) -> int:
        return max(1, workers_of(self._client))

    def encoder(self, exported: Encoder, folder: Path) -> Encoder:
        encoder = ClusterEncoder(self._client, folder)
        self._encoders.callback(encoder.forget)
        return encoder

    def map(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        shared: Sequence[Any] = (),
        progress: Progress = lambda _done: None,
    ) -> list[Any]:
        results: dict[int, Any] = {}
        sent = Sent(self._client, partial(_give, tuple(shared)))
        try:
            for number, result in sent.call(partial(_spread, function), enumerate(items)):
                results[number] = result
                progress(1)
        finally:
            sent.forget()
        return [results[number] for number in range(len(items))]

    def boost(
        self,
        parameters: Mapping[str, Any],
        columns: np.ndarray,
        labels: np.ndarray,
        start: np.ndarray | None,
        rounds: int,
    ) -> lightgbm.Booster:
        """Fit by LightGBM's distributed training: workers share rows, and merge histograms.

        If a worker dies, what is fitted is lost, and fitted anew by those that are there then.
        """
        for _attempt in range(ATTEMPTS):
            self._wait()
            workers = sorted(self._client.scheduler_info()["workers"])
            workers = workers[: max(1, len(labels) // FEWEST_ROWS)]
            try:
                return self._boost(workers, parameters, columns, labels, start, rounds)
            except (CancelledError, KilledWorker, OSError) as error:
                failure: Exception = error
            except lightgbm.basic.LightGBMError as error:
                if not str(error).startswith(_NETWORK_FAILURES):  # it would fail again
                    raise NoEngine(f"LightGBM failed on the workers: {error}") from error
                failure = error
            self._free(workers)
        raise NoEngine(f"LightGBM failed {ATTEMPTS} times on the workers: {failure}") from failure

    def _wait(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=RETURN_SECONDS)
        except TimeoutError as error:
            raise NoEngine("all workers of the Dask scheduler have gone") from error

    def _free(self, workers: Sequence[str]) -> None:
        """Let those that live leave the network that lost one: LightGBM would go on with it."""
        alive = [worker for worker in workers if worker in self._client.scheduler_info()["workers"]]
        rows = lightgbm.Dataset(np.eye(2), [0, 1], params={"verbosity": -1})
        any_booster = lightgbm.Booster({"verbosity": -1}, rows).model_to_string()
        freed = [
            self._client.submit(_free_network, any_booster, workers=[worker], pure=False)
            for worker in alive
        ]
        for future in freed:
            with suppress(Exception):  # one that dies just now has left, too
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
        # Shuffled: messages of one chat stand together, and every worker's rows are to be alike.
        order = np.random.default_rng(parameters.get("seed")).permutation(len(labels))
        shares = list(zip(np.array_split(order, len(workers)), workers, strict=True))

        def divided(values: np.ndarray) -> dask.array.Array:
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

        # A classifier would number the labels that a worker has, and take 1 for 0 where it is the
        # only one. What is fitted is the objective's: log-odds.
        model = lightgbm.DaskLGBMRegressor(
            client=self._client,
            n_estimators=rounds,
            time_out=SILENT_MINUTES,
            **{name: value for name, value in parameters.items() if name != "num_threads"},
        )
        with self._client.as_current():  # LightGBM waits by the default client
            model.fit(
                divided(columns),
                divided(labels),
                init_score=None if start is None else divided(start),
            )
        text = model.booster_.model_to_string()
        return lightgbm.Booster(model_str=_ADDRESSES.sub("", text))  # nobody's business later


@contextmanager
def computing_on(where: str) -> Iterator[ClusterCompute]:
    """Yield the cluster that `where` names. Raises NoEngine."""
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


def _give(shared: tuple[Any, ...], _folder: Path) -> tuple[Any, ...]:
    return shared


def _spread(function: Callable[..., Any], item: Any, shared: tuple[Any, ...]) -> Any:
    return function(item, *shared)
