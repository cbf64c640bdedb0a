"""End `bentoml serve` with exit code 1 if its worker cannot load the model.

BentoML's parent process would restart the worker forever, and exits with 0. So the worker creates a
file and ends the parent, which checks for the file when it exits.
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
    """End the parent if this process is a worker of `bentoml serve`."""
    if not _is_worker():
        return
    parent = os.getppid()
    with suppress(OSError):  # without the file the exit code is 0
        _flag(parent).touch()
    os.kill(parent, signal.SIGTERM)


def install() -> None:
    """Let this process exit with 1 if it is the parent and a worker ended it."""
    if not _is_worker():
        with suppress(OSError):
            _flag(os.getpid()).unlink()  # parents in containers have the same id
        atexit.register(_exit_if_ended)


def _exit_if_ended() -> None:
    flag = _flag(os.getpid())
    if flag.exists():
        flag.unlink()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _is_worker() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _WORKER


def _flag(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"feedsieve-{parent}.ended"
