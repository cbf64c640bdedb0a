"""End `bentoml serve` with exit code 1 when its worker cannot load the model.

BentoML's parent process restarts a worker that ends, again and again, and itself exits with 0. So
the worker leaves a mark and ends the parent, which looks for the mark when it exits.
"""

import atexit
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_WORKER = "_bentoml_impl.worker.service"  # the module that BentoML runs in a worker


def end_server() -> None:
    """End the `bentoml serve` that this process is a worker of; elsewhere do nothing."""
    if not _is_worker():
        return
    parent = os.getppid()
    with suppress(OSError):  # without the mark the server ends all the same, with exit code 0
        _mark(parent).touch()
    os.kill(parent, signal.SIGTERM)


def install() -> None:
    """Let this process, if it is the parent, exit with 1 if a worker ended it."""
    if not _is_worker():
        with suppress(OSError):
            _mark(os.getpid()).unlink()  # in a container each parent has the same number
        atexit.register(_exit_if_ended)


def _exit_if_ended() -> None:
    mark = _mark(os.getpid())
    if mark.exists():
        mark.unlink()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _is_worker() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _WORKER


def _mark(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"feedsieve-{parent}.ended"
