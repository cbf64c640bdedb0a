"""`python -m train.cluster`: a Dask scheduler and workers on this machine."""

import argparse
import os
import signal
import threading
from contextlib import suppress
from typing import NoReturn

import psutil
from distributed import LocalCluster

from train.compute.dask_scoring import scoring

__all__ = ["scoring"]  # the entry point of earlier installations


def main() -> NoReturn:
    """Run a scheduler and workers until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m train.cluster",
        description="Run a Dask scheduler and workers on this machine until interrupted. Anyone who"
        " can connect to the port can run code here: keep it on a trusted network.",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8786, help="(%(default)s)")
    parser.add_argument("--dashboard", type=int, default=8787, help="port (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C reaches this process alone
    cluster = LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        host=options.host,
        scheduler_port=options.port,
        dashboard_address=f"{options.host}:{options.dashboard}",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print(f"scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}")
    print(f"use it with --cluster {cluster.scheduler_address}", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    _end()


def _end() -> NoReturn:
    """End this process and its workers at once, where an orderly end takes seconds.

    Nothing is lost: whoever uses the cluster is told that it is gone, and resumes with another.
    """
    for worker in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    print("the cluster has ended", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
