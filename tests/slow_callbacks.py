"""The service in a process that records callbacks which hold the event loop for long.

Run as `python slow_callbacks.py PORT REPORT`: a line of REPORT is a duration in milliseconds and
the callback. asyncio's own watch takes the wall-clock time, which says little on a busy machine;
this takes the processor time of the event loop's thread.
"""

import asyncio
import sys
import time
from pathlib import Path

import uvicorn

LIMIT = 0.05  # seconds


def watch(report: Path) -> None:
    """Write callbacks that take longer than `LIMIT` to `report`."""
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        name = repr(handle._callback)
        started = time.thread_time()
        run(handle)
        seconds = time.thread_time() - started
        if seconds > LIMIT:
            with report.open("a") as file:
                file.write(f"{1000 * seconds:.0f} {name}\n")

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]


def main() -> None:
    port, report = int(sys.argv[1]), Path(sys.argv[2])
    server = uvicorn.Server
    import service  # which replaces uvicorn.Server and its protocol

    assert uvicorn.Server is not server
    # uvloop has no such hook.
    config = uvicorn.Config(
        service.Feedsieve.to_asgi(), host="127.0.0.1", port=port, loop="asyncio", log_config=None
    )
    watch(report)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
