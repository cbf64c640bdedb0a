"""A worker ends with the parent of `bentoml serve`, however that ends."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from serving import ROOT, serve, wait_until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")

ORPHAN = """
from feedsieve.serving import server_exit
server_exit.end_with_parent()
print("lives on")
"""


def wait_until(holds, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_killed_parent_takes_its_worker_along(small_environment, tmp_path):
    with serve(small_environment, tmp_path) as server:
        wait_until_ready(server)
        port = server.client.base_url.port
        assert not is_free(port)
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert workers
        server.process.kill()
        server.process.wait()
        try:
            assert wait_until(lambda: not any(map(psutil.Process.is_running, workers)))
            assert is_free(port)
        finally:
            for worker in workers:
                if worker.is_running():
                    worker.kill()


@pytest.mark.parametrize("parent_lives", [True, False])
def test_worker_whose_parent_ended_before_ends(parent_lives):
    """The parent may be killed before its worker has asked to be told."""
    parent = os.getpid() if parent_lives else 2**22  # ids are below
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN],
        env=os.environ | {"BENTO_SERVER_PROCESS": str(parent)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if parent_lives else -signal.SIGTERM), done.stderr
    assert done.stdout == ("lives on\n" if parent_lives else "")
