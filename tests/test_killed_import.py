"""Imports that are killed anywhere and run again leave the store of an unbroken import."""

import multiprocessing
import random
import time
from itertools import count

import pytest
from postgres_server import postgres
from stores import Location, query

from feedsieve.message import Message
from feedsieve.store.store import MessageStore

__all__ = ["postgres"]

KILLS = 20
MESSAGES = [
    Message(
        str(number % 2500),
        f"текст {number % 2700}",
        f"чат {number % 3}",
        source=f"telegram:group:{number % 3}",
        sender="Вера" if number % 2 else None,
    )
    for number in range(3000)
]


def import_all(place: Location) -> None:
    store = MessageStore.open(place)
    for start in range(0, len(MESSAGES), 1500):  # as two files
        store.add(MESSAGES[start : start + 1500])
    store.close()


def rows(place: Location) -> list[object]:
    """Return everything but the times of import."""
    return [
        query(place, f"SELECT {columns} FROM {table} ORDER BY {columns}")
        for table, columns in (
            ("sources", "key, title"),
            ("messages", "id, source_id, text, sender, fingerprint"),
            ("message_history", "id, text"),
            ("texts", "fingerprint, language"),
        )
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request, tmp_path):
    """Return a function that gives the location of a new store."""
    numbers = count()
    if request.param == "sqlite":
        return lambda: tmp_path / f"store{next(numbers)}.db"
    server = request.getfixturevalue("postgres")

    def create() -> str:
        name = f"imported{next(numbers)}"
        server.run(f"DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")
        return f"{server.url('postgres')}?options=-csearch_path%3D{name}"

    return create


def test_killed_imports_leave_the_store_of_an_unbroken_one(places):
    fork = multiprocessing.get_context("fork")
    unbroken, killed = places(), places()
    started = time.monotonic()
    import_all(unbroken)
    seconds = time.monotonic() - started
    random_ = random.Random(22)
    ended = 0
    for _ in range(KILLS):
        process = fork.Process(target=import_all, args=(killed,))
        process.start()
        process.join(random_.uniform(0, seconds))
        ended += process.exitcode is not None
        process.kill()
        process.join()
    assert ended < KILLS
    import_all(killed)
    assert rows(killed) == rows(unbroken)
    import_all(killed)
    assert rows(killed) == rows(unbroken)
