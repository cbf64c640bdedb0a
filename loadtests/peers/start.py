"""The peers, and how they are installed and started."""

import hashlib
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedsieve.errors import FeedsieveError
from feedsieve.settings import settings
from loadtests.harness.baselines import Baselines
from loadtests.harness.processes import ProgramFailed, Server, free_port, run_program, running

HERE = Path(__file__).parent
QUIET = {  # no model hub, no telemetry
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "PYTHONPATH": "",
}


class PeerUnavailable(FeedsieveError):
    """A peer cannot be installed; the message says why."""


@dataclass(frozen=True)
class Peer:
    """Another server. `name` is also that of its requirements."""

    name: str
    title: str
    words: str  # of the command, as templates; see `command`
    ready: str = "/readyz"
    path: str = "/score"
    key: str = "texts"  # of the texts in the body
    adds_prefix: bool = True  # puts the encoder's prefix before each text

    def command(self, programs: Path, baselines: Baselines, port: int) -> list[str]:
        """Return the command; `programs` is the folder of the environment's programs."""
        values = vars(baselines) | vars(baselines.description)
        values |= {"port": port, "here": HERE, "bin": programs}
        return [word.format_map(values) for word in self.words.split()]

    def job_fields(self, baselines: Baselines) -> dict[str, Any]:
        """Return the fields of `clients.Job` that differ from those of our server."""
        prefix = "" if self.adds_prefix else baselines.description.prefix
        return {"paths": [self.path], "key": self.key, "prefix": prefix}


PEERS = [Peer(**peer) for peer in tomllib.loads((HERE / "peers.toml").read_text())["peers"]]


@contextmanager
def peer(which: Peer, baselines: Baselines, log: Path) -> Iterator[Server]:
    """Install and run a peer during the block. Raises PeerUnavailable, ServerTimeout."""
    port = free_port()
    url, command = f"http://127.0.0.1:{port}", which.command(install(which), baselines, port)
    with running(command, url + which.ready, log, QUIET, within=180) as pid:
        yield Server(url, pid)


def install(which: Peer) -> Path:
    """Install a peer if need be; return the folder of its programs. Raises PeerUnavailable."""
    requirements, place = HERE / f"{which.name}.txt", settings().cache / "peers" / which.name
    stamp, digest = place / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != digest:
        print(f"installing {which.title}: a few minutes", file=sys.stderr, flush=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            run_program([sys.executable, "-m", "venv", "--clear", place])
            run_program([place / "bin" / "python", *pip, "--requirement", requirements])
        except ProgramFailed as error:
            raise PeerUnavailable(f"cannot be installed: {error}") from error
        stamp.write_text(digest, encoding="utf-8")
    return place / "bin"
