"""Our server, and any other Bento, started on a free port of this machine to be measured."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from train.servers import free_port, running

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 120.0  # seconds
OURS = "service:Feedsieve"


@dataclass(frozen=True)
class Server:
    """A running server: its address without a path, and its first process."""

    url: str
    pid: int


@contextmanager
def bento(
    log: Path, environment: Mapping[str, str] | None = None, service: str = OURS
) -> Iterator[Server]:
    """Serve until the block ends, which begins when the server is ready. Raises NoAnswer.

    What it prints goes into `log`.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", service]
    command += ["--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "True"}
    with running(
        command, f"{url}/readyz", log, quiet | dict(environment or {}), READY_WITHIN
    ) as pid:
        yield Server(url, pid)
