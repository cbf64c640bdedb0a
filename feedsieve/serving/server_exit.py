"""The end of `bentoml serve`: with exit code 1 if its worker cannot load the model, and as a whole.

BentoML's parent process would restart the worker forever, and exits with 0. So the worker creates a
file and ends the parent, which checks for the file when it exits. A parent that is killed cannot
end its worker, which would go on serving at the port, so Linux ends the worker then.
"""

import atexit
import ctypes
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from feedsieve.settings import server_process, set_server_process

_WORKER = "_bentoml_impl.worker.service"  # the module that BentoML runs in a worker
_PR_SET_PDEATHSIG = 1  # of Linux' prctl


def end_server() -> None:
    """End the parent if this process is a worker of `bentoml serve`."""
    if not _is_worker():
        return
    parent = os.getppid()
    with suppress(OSError):  # without the file the exit code is 0
        _flag(parent).touch()
    os.kill(parent, signal.SIGTERM)


def install() -> None:
    """Let a worker end with its parent, and the parent exit with 1 if a worker ended it."""
    if _is_worker():
        end_with_parent()
        return
    set_server_process()
    with suppress(OSError):
        _flag(os.getpid()).unlink()  # parents in containers have the same id
    atexit.register(_exit_if_ended)


def end_with_parent() -> None:
    """Let Linux send SIGTERM to this process when its parent ends, however it ends.

    To Linux the parent is the thread that started this process: BentoML's main thread. A parent
    that ended before is recognised by its id, since an orphan's new parent is not always 1.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if server_process() not in (None, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)


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
