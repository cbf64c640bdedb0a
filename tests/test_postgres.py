"""The message store in PostgreSQL: the tests of the SQLite store, and tests of the server."""

import itertools
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import psycopg
import pytest
from postgres_server import IN_URL, Postgres, postgres
from sqlalchemy import event, make_url
from stores import (
    MODEL,
    chat,
    location,
    pages,
    query,
    refusal,
    score_all,
    store,
    write_many,
)
from test_curation import TestCurated
from test_deployments import TestDeployments
from test_explore import TestSession
from test_feed import TestFeed, TestSample, twelve
from test_labels import TestAddLabels, TestImportLabels, TestResolvedLabels, one_message
from test_shadows import TestShadows
from test_store import (
    TestAdd,
    TestChanges,
    TestClashes,
    TestHostileStrings,
    TestScores,
    TestShownModel,
    TestWritingAtOnce,
    any_store,
)
from test_store_limits import TestLimits
from test_stored_keys import TestEarlierStore, TestKeys

from feedsieve.message import Message, StoreUnavailable
from feedsieve.store import database
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = [  # pytest runs these with the fixture `new_location` of this file
    "TestAdd",
    "TestAddLabels",
    "TestChanges",
    "TestClashes",
    "TestCurated",
    "TestDeployments",
    "TestEarlierStore",
    "TestFeed",
    "TestHostileStrings",
    "TestImportLabels",
    "TestKeys",
    "TestLimits",
    "TestResolvedLabels",
    "TestSample",
    "TestScores",
    "TestSession",
    "TestShadows",
    "TestShownModel",
    "TestWritingAtOnce",
    "any_store",
    "location",
    "one_message",
    "postgres",
    "store",
    "twelve",
]


@pytest.fixture(scope="session")
def new_location(postgres) -> Callable[[], str]:
    numbers = itertools.count()

    def create() -> str:
        name = f"store{next(numbers)}"
        postgres.run(f"CREATE SCHEMA {name}")  # a database takes 7 MB
        return f"{postgres.url('postgres')}?options=-csearch_path%3D{name}"

    return create


def assorted() -> list[Message]:
    """Return messages whose identifiers sort differently by bytes and by letters."""
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

    def test_database_sorts_differently_by_default(self, location):
        assert query(location, "SELECT 'a' < 'B', 'é' < 'Z', '9a' < '10'") == [(True,) * 3]

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_feed_pages_equal_those_of_sqlite(self, both, limit):
        found = []
        for one in both:
            one.add(assorted())
            score_all(one, lambda text: int(text[-1]) % 3 / 3)
            found.append([(page.items, page.next) for page in pages(one, limit)])
        assert found[0] == found[1]
        assert sum(item.copies > 1 for items, _ in found[0] for item in items) > 10

    def test_unscored_texts_equal_those_of_sqlite(self, both):
        found = []
        for one in both:
            one.add(assorted())
            first = one.unscored(MODEL, 20)
            one.save_scores(MODEL, [(key, 0.5) for key, _ in first[::2]])
            found.append(first + one.unscored(MODEL, 30) + one.unscored(MODEL, 30, first[9][0]))
        assert found[0] == found[1]

    def test_imports_equal_those_of_sqlite(self, both):
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

    def test_database_in_sql_ascii_returns_text(self, postgres):
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
    def test_processes_create_and_fill_one_store(self, location):
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(write_many, [location] * 2, range(2)))
        store = MessageStore.open(location)
        assert store.count() == 3 * 200
        score_all(store, lambda text: 0.5)
        assert len(store.feed(MODEL, 1000).items) == 600
        store.close()

    def test_concurrent_imports_in_opposite_orders_do_not_deadlock(self, store, location):
        """The second waits for the first, and changes nothing."""
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

    def test_page_is_a_snapshot(self, store, location):
        """A message whose text changes while a page is read is not on it twice."""
        store.add(chat(4))
        score_all(store, lambda text: int(text[-1]) / 10)
        other = MessageStore.open(location)
        other.save_scores(MODEL, [(fingerprint("worse"), 0.05)])

        def change(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
            if statement.startswith("SELECT scores"):
                other.add([Message("m00002", "worse")])

        first = store.feed(MODEL, 1)
        between = first.next._replace(score=0.2, fingerprint="0" * 32)
        event.listen(store._engine, "after_cursor_execute", change)
        page = store.feed(MODEL, 10, between)
        event.remove(store._engine, "after_cursor_execute", change)
        other.close()
        assert [item.id for item in page.items] == ["m00002", "m00001", "m00000"]


class TestSamplePages:
    def test_sample_of_a_large_table_reads_few_pages_and_reaches_all(self, store):
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
    def test_store_recovers_after_a_restart_of_the_server(self, store, restarted, how):
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

    def test_import_during_a_shutdown_stores_nothing(self, store, restarted):
        def messages() -> Iterator[Message]:
            yield from chat(2500)
            restarted.stop()
            yield from chat(2500, 2500)

        with pytest.raises(StoreUnavailable, match="message store postgresql://"):
            store.add(messages())
        restarted.start()
        assert store.count() == 0
        assert store.add(chat(5000)).added == 5000

    def test_reader_of_a_locked_table_fails_after_a_timeout(self, location, monkeypatch):
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

    def test_terminated_connections_are_replaced(self, store, postgres):
        store.add(chat(10))
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
        assert store.count() == 10

    @pytest.mark.parametrize(("given", "seconds"), [("", "15000"), ("tcp_user_timeout=7", "7")])
    def test_server_that_vanishes_is_given_up_in_time(self, postgres, given, seconds):
        url = make_url(postgres.url("postgres"))
        engine = database.connect(url.update_query_string(f"{given}&client_encoding=latin1"))
        with engine.connect() as connection:
            parameters = connection.connection.driver_connection.info.get_parameters()
        engine.dispose()
        assert parameters["tcp_user_timeout"] == seconds
        assert parameters["keepalives_idle"] == "30"
        assert parameters["client_encoding"] == "utf8"

    def test_missing_server_is_reported(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        message = refusal(f"postgresql://tester:{IN_URL}@127.0.0.1:{port}/chat")
        assert f"message store postgresql://tester:***@127.0.0.1:{port}/chat: " in message
        assert "onnection refused" in message

    def test_missing_database_is_reported(self, postgres):
        assert 'database "absent" does not exist' in refusal(postgres.url("absent"))

    def test_wrong_password_is_reported_without_it(self, postgres):
        message = refusal(postgres.url("postgres").replace(IN_URL, "wrongsecret"))
        assert "password authentication failed" in message
        assert "wrongsecret" not in message

    def test_password_among_the_options_is_hidden(self, postgres):
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
    def test_bad_url_is_reported_without_its_password(self, url):
        message = refusal(url)
        assert "ret" not in message, message

    def test_table_of_another_program_is_rejected_and_unchanged(self, location):
        with psycopg.connect(location) as connection:
            connection.execute("CREATE TABLE messages (id text)")
        assert "its table messages is another program's" in refusal(location)
        assert query(location, "SELECT * FROM messages") == []

    def test_user_without_permission_is_reported(self, postgres):
        postgres.run("CREATE ROLE reader LOGIN PASSWORD 'secret'")
        url = postgres.url("postgres").replace(f"tester:{IN_URL}", "reader:secret")
        assert "permission denied for schema public" in refusal(url)

    def test_other_driver_is_rejected(self):
        message = refusal("postgresql+asyncpg://me:secret@host/chat")
        assert "write postgresql://" in message and "secret" not in message

    def test_missing_driver_says_how_to_install_it(self):
        """In a process that cannot import psycopg."""
        code = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from feedsieve.message import StoreUnavailable\n"
            "from feedsieve.store.store import MessageStore\n"
            "try: MessageStore.open('postgresql://me:secret@host/chat')\n"
            "except StoreUnavailable as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "pip install -c constraints.txt -e '.[postgres]'" in done.stdout, done.stderr
        assert "secret" not in done.stdout
