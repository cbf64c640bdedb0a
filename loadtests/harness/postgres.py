"""A PostgreSQL server of its own, run as an unprivileged user."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from loadtests.harness.processes import ProgramFailed, free_port

OLDEST = 15  # the first with ICU as the locale provider of databases
PASSWORD = "a secret/:?#%"
IN_URL = "a%20secret%2F%3A%3F%23%25"


class Postgres:
    """A server with its files in `folder`, run as an unprivileged user."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL does not run as root
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        command: list[str | Path] = [programs / "initdb", "--pgdata", self._data, "--no-sync"]
        command += ["--username", "tester", "--auth", "scram-sha-256", "--pwfile", secret]
        command += ["--no-instructions", "--locale", "C", "--encoding", "UTF8"]
        command += ["--locale-provider", "icu"]
        command += ["--icu-locale", "en-u-kn-true"]  # kn: digits sort as numbers
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **self._user)
        if done.returncode:
            raise ProgramFailed(f"initdb failed: {done.stderr.strip()}")
        self._port = free_port()

    def start(self) -> None:
        """Return once it answers. Raises ProgramFailed."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
        }
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        command += [f"--{name}={value}" for name, value in options.items()]
        with self._log.open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                cwd=self._data,
                stdout=log,
                stderr=log,
                **self._user,
            )
        self._process = process
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise ProgramFailed(f"PostgreSQL: {self._log.read_text()}") from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT shuts it down cleanly, SIGQUIT is like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def url(self, name: str) -> str:
        """Return the URL of a database, which need not exist."""
        return f"postgresql://tester:{IN_URL}@127.0.0.1:{self._port}/{name}"

    def run(self, statement: str) -> None:
        """Run a statement in the database `postgres`."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL that is new enough, if any."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    versions = {}
    for folder in folders:
        done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True)
        if match := re.search(r"PostgreSQL\) (\d+)", done.stdout):
            versions[int(match[1])] = folder
    newest = max(versions, default=0)
    return versions[newest] if newest >= OLDEST else None


@contextmanager
def temporary(folder: Path) -> Iterator[Postgres]:
    """Run a new server during the block; `folder` is that of its programs."""
    # In a place of its own: an unprivileged user may not enter folders of whoever command this.
    with tempfile.TemporaryDirectory(prefix="feedsieve-postgres-") as home:
        server = Postgres(folder, Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
