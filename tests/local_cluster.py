"""A Dask cluster of processes on this machine, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from train.compute.dask_cluster import connect


@contextmanager
def local_workers(count: int) -> Iterator[Client]:
    """Yield a cluster of `count` workers, and restore the environment."""
    before = dict(os.environ)
    try:
        with connect(f"local:{count}") as client:
            yield client
    finally:
        for name in os.environ.keys() - before:  # Dask sets OMP_NUM_THREADS=1 for its workers
            del os.environ[name]
