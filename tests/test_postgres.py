"""The message store in PostgreSQL: the tests of the SQLite one, and what only a server can do."""

import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from test_curation import TestCurated
from test_store import (
    MODEL,
    TestAdd,
    TestChanges,
    TestClashes,
    TestFeed,
    TestHostileStrings,
    TestSample,
    TestScores,
    TestShownModel,
    TestWritingAtOnce,
    any_store,
    chat,
    location,
    pages,
    query,
    refusal,
    score_all,
    store,
    twelve,
    write_many,
)

from feedsieve import database
from feedsieve.store import Message, MessageStore, StoreUnavailable
from feedsieve.text import fingerprint

__all__ = [  # pytest runs these here too, with the locations that this file gives
    "TestAdd",
    "TestChanges",
    "TestClashes",
    "TestCurated",
    "TestFeed",
    "TestHostileStrings",
    "TestSample",
    "TestScores",
    "TestShownModel",
    "TestWritingAtOnce",
    "any_store",
    "location",
    "store",
    "twelve",
]

OLDEST = 15  # the first whose databases can sort as a language does without the system's locales
PASSWORD = "a secret/:?#%"
IN_URL = "a%20secret%2F%3A%3F%23%25"


class Postgres:
    """A server of our own, run as an unprivileged user, with its files in `folder`."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        done = subprocess.run(
            [self._programs / "initdb", "--pgdata", self._data, "--username", "tester"]
            + ["--auth", "scram-sha-256", "--pwfile", secret, "--no-sync", "--no-instructions"]
            + ["--locale", "C", "--encoding", "UTF8", "--locale-provider", "icu"]
            + ["--icu-locale", "en-u-kn-true"],  # kn: digits sort by the number they make
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
        """End the server: SIGINT ends what runs in good order, SIGQUIT is as good as a crash."""
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
    """Return the folder of the newest PostgreSQL here that is new enough, if there is one."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    versions = {}
    for folder in folders:
        told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True)
        if match := re.search(r"PostgreSQL\) (\d+)", told.stdout):
            versions[int(match[1])] = folder
    newest = max(versions, default=0)
    return versions[newest] if newest >= OLDEST else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if (folder := programs()) is None:
        pytest.skip(f"no PostgreSQL {OLDEST} or newer is installed: apt-get install postgresql")
    # Not pytest's folder, in which only the user who runs the tests may read.
    with tempfile.TemporaryDirectory(prefix="feedsieve-postgres-") as home:
        server = Postgres(folder, Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)


@pytest.fixture(scope="session")
def new_location(postgres) -> Callable[[], str]:
    numbers = itertools.count()

    def create() -> str:
        name = f"store{next(numbers)}"
        postgres.run(f"CREATE SCHEMA {name}")  # a database of its own takes 7 MB
        return f"{postgres.url('postgres')}?options=-csearch_path%3D{name}"

    return create


def assorted() -> list[Message]:
    """Return messages whose identifiers sort in one way by their bytes and in others by letters."""
    random_ = random.Random(7)
    letters = ["a", "B", "b", "Z", "é", "e", "É", "_", "-", " ", "~", "1", "10", "9", "я", "Ж", "ß"]
    letters += ["ss", "\u0130", "i", "I", "\U0001f3e0", "\uffee", ":", "'", "%", "\\"]
    identifiers = {"".join(random_.choices(letters, k=random_.randint(1, 3))) for _ in range(400)}
    return [
        Message(identifier, f"text {random_.randrange(150)}")
        for identifier in sorted(identifiers)
        if identifier.strip() == identifier
    ]


class TestAsInSqlite:
    @pytest.fixture
    def both(self, store, tmp_path) -> Iterator[tuple[MessageStore, MessageStore]]:
        file = MessageStore.open(tmp_path / "store.db")
        yield store, file
        file.close()

    def test_the_database_itself_sorts_otherwise(self, location):
        assert query(location, "SELECT 'a' < 'B', 'é' < 'Z', '9a' < '10'") == [(True,) * 3]

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_the_feed_and_its_pages(self, both, limit):
        found = []
        for one in both:
            one.add(assorted())
            score_all(one, lambda text: int(text[-1]) % 3 / 3)
            found.append([(page.items, page.next) for page in pages(one, limit)])
        assert found[0] == found[1]
        assert sum(item.copies > 1 for items, _ in found[0] for item in items) > 10

    def test_what_is_unscored(self, both):
        found = []
        for one in both:
            one.add(assorted())
            first = one.unscored(MODEL, 20)
            one.save_scores(MODEL, [(mark, 0.5) for mark, _ in first[::2]])
            found.append(first + one.unscored(MODEL, 30) + one.unscored(MODEL, 30, first[9][0]))
        assert found[0] == found[1]

    def test_what_an_import_does(self, both):
        random_ = random.Random(3)
        imports = [
            [
                Message(random_.choice("abAB"), random_.choice("xyz"), random_.choice("pq") or None)
                for _ in range(10)
            ]
            for _ in range(20)
        ]
        counts = [[one.add(messages) for messages in imports] for one in both]
        assert counts[0] == counts[1]
        assert both[0].count() == both[1].count()
        names = both[1].sample(100)
        assert [both[0].get(name) for name in names] == [both[1].get(name) for name in names]

    def test_a_database_in_an_encoding_that_says_nothing(self, postgres):
        postgres.run(
            "CREATE DATABASE ascii TEMPLATE template0 ENCODING SQL_ASCII"
            " LOCALE_PROVIDER libc LOCALE 'C'"
        )
        store = MessageStore.open(postgres.url("ascii"))
        store.add([Message("é", "Ж \U0001f3e0")])
        score_all(store, lambda text: 0.5)
        assert [(item.id, item.text) for item in store.feed(MODEL, 1).items] == [
            ("é", "Ж \U0001f3e0")
        ]
        store.close()


class TestWriters:
    def test_processes_make_and_fill_one_store(self, location):
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(write_many, [location] * 2, range(2)))
        store = MessageStore.open(location)
        assert store.count() == 3 * 200
        score_all(store, lambda text: 0.5)
        assert len(store.feed(MODEL, 1000).items) == 600
        store.close()

    def test_two_imports_of_the_same_in_opposite_orders(self, store, location):
        """One waits for the other, finds what that one brought, and changes nothing."""
        both_run = threading.Barrier(2, timeout=30)
        counts = []

        def fill(messages: list[Message]) -> None:
            own = MessageStore.open(location)
            both_run.wait()
            counts.append(own.add(messages))
            own.close()

        threads = [
            threading.Thread(target=fill, args=[chat(5000)[::step]], daemon=True)
            for step in (1, -1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [(c.added, c.changed, c.unchanged) for c in counts] == [(5000, 0, 0), (0, 0, 5000)]
        assert store.count() == 5000

    def test_a_page_is_of_one_moment(self, store, location):
        """A message that gets a worse text while a page is read is not on it twice."""
        store.add(chat(4))
        score_all(store, lambda text: int(text[-1]) / 10)
        other = MessageStore.open(location)
        other.save_scores(MODEL, [(fingerprint("worse"), 0.05)])

        def change(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
            if statement.startswith("SELECT scores"):
                other.add([Message("m00002", "worse")])

        first = store.feed(MODEL, 1)
        between = replace(first.next, score=0.2, fingerprint="0" * 32)
        event.listen(store._engine, "after_cursor_execute", change)
        page = store.feed(MODEL, 10, between)
        event.remove(store._engine, "after_cursor_execute", change)
        other.close()
        assert [item.id for item in page.items] == ["m00002", "m00001", "m00000"]


class TestSamplePages:
    def test_of_a_large_table_some_pages_are_read_and_all_have_their_turn(self, store):
        store.add(chat(20_000))
        read = []
        event.listen(
            store._engine, "after_cursor_execute", lambda *event_: read.append(event_[1:3])
        )
        drawn = [identifier for _ in range(200) for identifier in store.sample(5)]
        assert all(len(set(drawn[i : i + 5])) == 5 for i in range(0, 1000, 5))
        assert max(cursor.rowcount for cursor, _ in read) < 5000
        fifths = [int(identifier[1:]) // 4000 for identifier in drawn]
        assert all(100 < fifths.count(fifth) < 300 for fifth in range(5))  # 200 expected


class TestUnavailable:
    @pytest.fixture
    def restarted(self, postgres) -> Iterator[Postgres]:
        yield postgres
        postgres.stop()
        postgres.start()

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "killed"])
    def test_the_server_goes_and_comes_back(self, store, restarted, how):
        store.add(chat(10))
        score_all(store, lambda text: 0.5)
        restarted.stop(how)
        for method in (
            lambda: store.add(chat(1)),
            lambda: store.get("m00001"),
            lambda: store.feed(MODEL, 5),
            lambda: store.save_scores(MODEL, [(fingerprint("a"), 0.5)]),
        ):
            with pytest.raises(StoreUnavailable, match="message store postgresql://") as caught:
                method()
            assert "secret" not in str(caught.value)
        restarted.start()
        assert store.count() == 10
        assert len(store.feed(MODEL, 50).items) == 10
        assert store.add(chat(20)).added == 10

    def test_the_server_goes_during_an_import(self, store, restarted):
        def messages() -> Iterator[Message]:
            yield from chat(2500)
            restarted.stop()
            yield from chat(2500, 2500)

        with pytest.raises(StoreUnavailable, match="message store postgresql://"):
            store.add(messages())
        restarted.start()
        assert store.count() == 0
        assert store.add(chat(5000)).added == 5000

    def test_a_table_that_somebody_keeps_locked(self, location, monkeypatch):
        monkeypatch.setattr(database, "READER_LOCK_SECONDS", 0.2)
        store = MessageStore.open(location)
        store.add(chat(10))
        score_all(store, lambda text: 0.5)
        with psycopg.connect(location.replace("+psycopg", "")) as other:
            other.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
            for method in (
                lambda: store.get("m00001"),
                lambda: store.feed(MODEL, 5),
                lambda: store.sample(5),
            ):
                with pytest.raises(StoreUnavailable, match="lock timeout"):
                    method()
        assert len(store.feed(MODEL, 50).items) == 10
        store.close()

    def test_another_program_ends_our_connections(self, store, postgres):
        store.add(chat(10))
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
        assert store.count() == 10

    def test_no_server(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        message = refusal(f"postgresql://tester:{IN_URL}@127.0.0.1:{port}/chat")
        assert f"message store postgresql://tester:***@127.0.0.1:{port}/chat: " in message
        assert "onnection refused" in message

    def test_no_such_database(self, postgres):
        assert 'database "absent" does not exist' in refusal(postgres.url("absent"))

    def test_a_wrong_password(self, postgres):
        message = refusal(postgres.url("postgres").replace(IN_URL, "wrongsecret"))
        assert "password authentication failed" in message
        assert "wrongsecret" not in message

    def test_a_password_among_the_options(self, postgres):
        url = postgres.url("postgres").replace(f":{IN_URL}", "")
        message = refusal(f"{url}?password=wrongsecret")
        assert "password authentication failed" in message
        assert "wrongsecret" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:sec@ret@127.0.0.1/chat",
            "postgresql://me:sec@ret:5@127.0.0.1/chat",
            "postgresql://me:secret@127.0.0.1:port/chat",
            "postgresql://me:secret@127.0.0.1/chat?passwort=secret",
        ],
    )
    def test_a_bad_url(self, url):
        message = refusal(url)
        assert "ret" not in message, message

    def test_a_table_of_another_program(self, location):
        with psycopg.connect(location) as connection:
            connection.execute("CREATE TABLE messages (id text)")
        assert "its table messages is another program's" in refusal(location)
        assert query(location, "SELECT * FROM messages") == []

    def test_who_may_not_make_tables(self, postgres):
        postgres.run("CREATE ROLE reader LOGIN PASSWORD 'secret'")
        url = postgres.url("postgres").replace(f"tester:{IN_URL}", "reader:secret")
        assert "permission denied for schema public" in refusal(url)

    def test_another_driver(self):
        message = refusal("postgresql+asyncpg://me:secret@host/chat")
        assert "write postgresql://" in message and "secret" not in message

    def test_without_the_driver(self):
        """In a process of its own, in which psycopg cannot be imported."""
        code = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from feedsieve.store import MessageStore, StoreUnavailable\n"
            "try: MessageStore.open('postgresql://me:secret@host/chat')\n"
            "except StoreUnavailable as error: print(error)\n"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "pip install -c constraints.txt -e '.[postgres]'" in told.stdout, told.stderr
        assert "secret" not in told.stdout
