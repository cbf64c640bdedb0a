"""Which peers there are, and how each is installed and started."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedsieve.settings import settings
from loadtests.baselines import Baselines
from loadtests.server import Server
from train.servers import free_port, running

HERE = Path(__file__).parent
READY_WITHIN = 180.0  # seconds
QUIET = {  # no hub, no telemetry
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "PYTHONPATH": "",
}


class NoPeer(RuntimeError):
    """A peer cannot be installed; says why."""


@dataclass(frozen=True)
class Peer:
    """Another server: `name` is that of its files here; requests carry texts under `key`."""

    name: str
    title: str
    command: Callable[[Path, Baselines, int], list[str]]  # of its bin, the encoder and a port
    ready: str = "/readyz"
    path: str = "/score"
    key: str = "texts"
    takes_prefix: bool = False  # the client must put the encoder's prefix before each text

    def asked(self, encoder: Baselines) -> dict[str, Any]:
        """Return how it is asked for scores: fields of `clients.Job`."""
        prefix = encoder.prefix if self.takes_prefix else ""
        return {"paths": [self.path], "key": self.key, "prefix": prefix}


def _flask(commands: Path, encoder: Baselines, port: int) -> list[str]:
    return [*_script(commands, "flask_transformers", encoder, port), str(encoder.transformers)]


def _fastapi(commands: Path, encoder: Baselines, port: int) -> list[str]:
    return [*_script(commands, "fastapi_onnxruntime", encoder, port), str(encoder.fp32)]


def _script(commands: Path, name: str, encoder: Baselines, port: int) -> list[str]:
    options = ["--prefix", encoder.prefix, "--max-tokens", str(encoder.max_tokens)]
    options += ["--port", str(port), "--model"]
    return [str(commands / "python"), str(HERE / f"{name}.py"), *options]


def _infinity(commands: Path, encoder: Baselines, port: int) -> list[str]:
    return [
        *(str(commands / "infinity_emb"), "v2", "--model-id", str(encoder.hidden)),
        *("--engine", "optimum", "--device", "cpu", "--pooling-method", "mean"),
        *("--no-bettertransformer", "--host", "127.0.0.1", "--port", str(port)),
    ]


PEERS = (
    Peer("flask_transformers", "Flask, transformers, one message at a time", _flask),
    Peer("fastapi_onnxruntime", "FastAPI, onnxruntime fp32, no batching", _fastapi),
    Peer(
        "infinity",
        "infinity-emb 0.0.78, optimum engine",
        _infinity,
        ready="/health",
        path="/embeddings",
        key="input",
        takes_prefix=True,
    ),
)


@contextmanager
def peer(which: Peer, encoder: Baselines, log: Path) -> Iterator[Server]:
    """Run a peer until the block ends, installing it first if need be. Raises NoPeer, NoAnswer."""
    commands = installed(which)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = which.command(commands, encoder, port)
    with running(command, url + which.ready, log, QUIET, READY_WITHIN) as pid:
        yield Server(url, pid)


def installed(which: Peer) -> Path:
    """Return where the commands of a peer's environment are, made if it is not there yet.

    It is made anew if its requirements have changed. Raises NoPeer.
    """
    requirements = HERE / f"{which.name}.txt"
    place = settings().cache / "peers" / which.name
    stamp = place / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return place / "bin"
    print(f"installing {which.title}: minutes", file=sys.stderr, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--requirement", requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", place], pip):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise NoPeer(f"cannot be installed: {said[-1] if said else 'pip says nothing'}")
    stamp.write_text(wanted, encoding="utf-8")
    return place / "bin"
