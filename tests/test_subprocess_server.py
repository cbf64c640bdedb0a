"""Servers run as subprocesses."""

import sys
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from loadtests.harness import processes
from loadtests.harness.processes import ServerTimeout, free_port, running

STUBBORN = """
import signal, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
signal.signal(signal.SIGTERM, signal.SIG_IGN)
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def url(port) -> str:
    return f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize(
    "program", [["-m", "http.server", "--bind", "127.0.0.1"], ["-c", STUBBORN]]
)
def test_server_answers_until_the_block_ends(program, port, url, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_WITHIN", 0.5)
    command = [sys.executable, *program, str(port)]
    with running(command, url, tmp_path / "log", {}, 60):
        assert urlopen(url).status == 200
    with pytest.raises(URLError):
        urlopen(url)
    assert "GET / HTTP/1.1" in (tmp_path / "log").read_text()


def test_server_that_exits_raises(url, tmp_path):
    command = [sys.executable, "-c", "import os; print(os.environ['WHY'])"]
    with (
        pytest.raises(ServerTimeout, match="exited before it was ready"),
        running(command, url, tmp_path / "log", {"WHY": "no money"}, 60),
    ):
        pytest.fail("it runs")
    assert (tmp_path / "log").read_text() == "no money\n"


def test_server_that_never_answers_raises(url, tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(ServerTimeout, match="did not answer within 1 seconds"),
        running(command, url, tmp_path / "log", {}, 1),
    ):
        pytest.fail("it answers")
