"""A PostgreSQL server for tests, run as an unprivileged user."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

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
        done = subprocess.run(
            [self._programs / "initdb", "--pgdata", self._data, "--username", "tester"]
            + ["--auth", "scram-sha-256", "--pwfile", secret, "--no-sync", "--no-instructions"]
            + ["--locale", "C", "--encoding", "UTF8", "--locale-provider", "icu"]
            + ["--icu-locale", "en-u-kn-true"],  # kn: digits sort as numbers
            cwd=folder,
            capture_output=True,
            text=True,
            **self._user,
        )
        assert done.returncode == 0, done.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data]
                + [f"--{name}={value}" for name, value in options.items()],
                cwd=self._data,
                stdout=log,
                stderr=log,
                **self._user,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError:
                late = time.monotonic() > deadline or self._process.poll() is not None
                assert not late, self._log.read_text()
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT shuts it down cleanly, SIGQUIT is like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def url(self, name: str) -> str:
        return f"postgresql://tester:{IN_URL}@127.0.0.1:{self._port}/{name}"

    def run(self, statement: str) -> None:
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if (folder := programs()) is None:
        pytest.skip(f"no PostgreSQL {OLDEST} or newer is installed: apt-get install postgresql")
    # Only the current user may read pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="feedsieve-postgres-") as home:
        server = Postgres(folder, Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
