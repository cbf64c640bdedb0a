"""`python -m loadtests.fuzz`: requests that schemathesis makes up from the OpenAPI document.

Fails on a 5xx, and on a status, media type or body that the document does not describe.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.message import Message
from feedsieve.store.keys import KeyScope
from feedsieve.store.store import MessageStore
from loadtests.harness.processes import bento

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
SCOPES: tuple[KeyScope, ...] = ("read", "score", "write")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.fuzz",
        description="Start the server on a free port of this machine, with a store of its own and"
        " API keys needed for everything, and send it requests that schemathesis makes up from"
        " /openapi.json, valid and not. Fails on a 5xx or on an answer that is not documented.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seconds", type=int, default=600, help="duration")
    parser.add_argument("--seed", type=int, help="seed, to repeat a run")
    options = parser.parse_args()
    return run_command("loadtests.fuzz", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = MessageStore.open(str(folder / "messages.db"))
        store.add([Message(str(number), f"Сдаётся дом {number}") for number in range(100)])
        key = store.add_key("fuzz", SCOPES, None)
        store.close()
        with bento(folder / "server.log", _settings(folder)) as server:
            command = [sys.executable, "-m", "schemathesis.cli", "run"]
            command += [f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {key}"]
            command += ["--checks", ",".join(CHECKS), "--max-time", str(options.seconds)]
            command += ["--continue-on-failure", "--request-timeout", "30", "--warnings", "off"]
            if options.seed is not None:
                command += ["--seed", str(options.seed)]
            code = subprocess.run(command, cwd=folder, env=os.environ, check=False).returncode
        if code:
            print((folder / "server.log").read_text(encoding="utf-8", errors="replace")[-5000:])
    return code


def _settings(folder: Path) -> dict[str, str]:
    return {
        "FEEDSIEVE_DB": str(folder / "messages.db"),
        "FEEDSIEVE_READING_NEEDS_KEY": "1",
        "FEEDSIEVE_SCORING_NEEDS_KEY": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
