"""Stores of earlier versions are migrated when they are opened; those of newer ones are refused."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from postgres_server import postgres
from serving import ROOT
from sqlalchemy import Connection, text
from stores import Location, content, history, location, new_location, query, refusal

from feedsieve.message import Message
from feedsieve.store import database, migrations
from feedsieve.store.database import find_database
from feedsieve.store.schema import REVISION, metadata, revisions
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["location", "new_location", "postgres"]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def earlier(request, tmp_path) -> Callable[[int], Location]:
    """Return a function that gives the location of a store without revisions."""
    if request.param == "sqlite":
        place: Location = tmp_path / "store.db"
    else:
        server = request.getfixturevalue("postgres")
        server.run("DROP SCHEMA IF EXISTS earlier CASCADE; CREATE SCHEMA earlier")
        place = f"{server.url('postgres')}?options=-csearch_path%3Dearlier"

    def make(count: int) -> Location:
        with writing(place) as connection:
            migrations.upgrade(connection, "1")
            connection.execute(text(f"DROP TABLE {revisions.name}"))
            rows = [row(str(number), f"text {number}") for number in range(count)]
            rows += [
                row("a", "one", "flats"),
                row("cars:a", "two", "cars"),
                row(":a", "three"),
                row("101:-7", "four", "Chat A"),
                row("cars:cars:a", "five", "cars"),
            ]
            statement = (
                "INSERT INTO messages (id, text, channel, time, fingerprint, seen_at)"
                " VALUES (:id, :text, :channel, :time, :fingerprint, :seen_at)"
            )
            connection.execute(text(statement), rows)
            connection.execute(
                text("INSERT INTO message_history VALUES ('a', 'earlier', '2024-05-01 12:00:00')")
            )
            connection.execute(
                text("INSERT INTO scores VALUES ('one', :fingerprint, 0.25)"),
                [{"fingerprint": key} for key in {row["fingerprint"] for row in rows}],
            )
        return place

    return make


@contextmanager
def writing(place: Location) -> Iterator[Connection]:
    url, _dump = find_database(place, None)
    engine = database.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def row(identifier: str, text: str, channel: str | None = None) -> dict[str, object]:
    return {
        "id": identifier,
        "text": text,
        "channel": channel,
        "time": "2024-05-01 12:00:00",
        "fingerprint": fingerprint(text),
        "seen_at": "2024-05-01 12:00:00",
    }


def open_and_die(place: Location) -> None:
    """Open a store in a process that is killed after its tables were migrated."""
    database.store_missing_facts = lambda _connection: os.kill(os.getpid(), signal.SIGKILL)
    MessageStore.open(place)


class TestEarlierStore:
    def test_messages_keep_identifiers_and_get_sources(self, earlier):
        store = MessageStore.open(earlier(3))
        assert store.count() == 8
        assert store.get("2") == Message("2", "text 2", None, NOON)
        assert store.get("a") == Message("a", "one", "flats", NOON)
        assert store.get("cars:a") == Message("cars:a", "two", "cars", NOON)
        assert store.get(":a") == Message(":a", "three", None, NOON)
        assert store.get("101:-7").source == "telegram:?:101"
        assert store.get("101:-7").channel == "Chat A"
        [found] = store.find("one", ["a"]).values()
        assert found.score == 0.25
        store.close()

    def test_history_is_kept(self, earlier):
        place = earlier(1)
        MessageStore.open(place).close()
        assert history(place) == [("a", "earlier")]

    def test_messages_imported_again_are_known(self, earlier):
        store = MessageStore.open(earlier(3))
        again = [
            Message("1", "text 1"),
            Message("a", "one", "flats"),
            Message("a", "two", "cars"),
            Message("a", "three"),
            Message("-7", "four", "Chat A", source="telegram:channel:101"),
        ]
        counts = store.add(again)
        assert (counts.added, counts.unchanged) == (0, 5)
        assert store.get("101:-7").source == "telegram:channel:101"
        store.close()

    def test_tables_equal_those_of_a_new_store(self, earlier):
        place = earlier(1)
        MessageStore.open(place).close()
        with writing(place) as connection:
            options = {"version_table": revisions.name}
            context = MigrationContext.configure(connection, opts=options)
            differences = compare_metadata(context, metadata)
        assert [item for item in differences if "curated_messages" not in str(item)] == []

    def test_curated_messages_are_readable(self, earlier):
        place = earlier(3)
        MessageStore.open(place).close()
        assert query(place, "SELECT count(*) FROM curated_messages") == [(8,)]

    def test_interrupted_migration_starts_again(self, earlier):
        place = earlier(3000)
        process = multiprocessing.get_context("fork").Process(target=open_and_die, args=(place,))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        store = MessageStore.open(place)
        assert store.count() == 3005
        assert store.get("cars:a").text == "two"
        store.close()

    def test_store_without_facts_gets_them(self, earlier):
        place = earlier(3)
        query_all(place, "DROP TABLE texts")
        MessageStore.open(place).close()
        assert query(place, "SELECT count(*) FROM texts") == [(8,)]


def query_all(place: Location, statement: str) -> None:
    with writing(place) as connection:
        connection.execute(text(statement))


def test_migration_copies_sqlites_file_first(tmp_path):
    place = tmp_path / "messages.db"
    shutil.copyfile(ROOT / "tests" / "earlier" / "messages.db", place)
    before = query(place, "SELECT * FROM messages ORDER BY id")
    MessageStore.open(place).close()
    copy = tmp_path / "messages.db.backup-1"
    assert query(copy, "SELECT * FROM messages ORDER BY id") == before
    assert {path.name for path in tmp_path.iterdir()} == {place.name, copy.name}


def test_full_disk_leaves_the_earlier_store(tmp_path, monkeypatch):
    place = tmp_path / "messages.db"
    shutil.copyfile(ROOT / "tests" / "earlier" / "messages.db", place)
    before = place.read_bytes()

    def fail(engine, revision):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database, "_back_up", fail)
    assert refusal(place) == f"message store {place}: database or disk is full"
    assert place.read_bytes() == before


def test_store_of_a_newer_version_is_refused(location):
    MessageStore.open(location).close()
    before = content(location)
    query(location, f"UPDATE {revisions.name} SET version_num = '99'")
    assert "newer version of feedsieve (its schema is 99" in refusal(location)
    assert content(location) == before


def test_revision_is_that_of_the_last_migration(location):
    MessageStore.open(location).close()
    assert query(location, f"SELECT version_num FROM {revisions.name}") == [(REVISION,)]
    scripts = migrations.ScriptDirectory(str(migrations._FOLDER))
    assert scripts.get_current_head() == REVISION


def test_current_store_opens_without_alembic(location):
    MessageStore.open(location).close()
    code = (
        "import sys; from feedsieve.store.store import MessageStore;"
        f"MessageStore.open({str(location)!r}); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_table_of_another_program_is_refused(tmp_path):
    place = tmp_path / "store.db"
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE labels (name)")
        connection.commit()
    assert "its table labels is another program's" in refusal(place)
