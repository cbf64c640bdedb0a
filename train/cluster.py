"""`python -m train.cluster`: a Dask scheduler and workers on this machine."""

import argparse
import signal
import sys
import threading
from contextlib import suppress

from distributed import LocalCluster

from train.compute.dask_scoring import scoring

__all__ = ["scoring"]  # the entry point of earlier installations


def main() -> int:
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
    for number in (signal.SIGINT, signal.SIGTERM):  # shells make background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)
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
