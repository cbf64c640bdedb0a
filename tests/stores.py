"""Message stores in tests: fixtures, and functions that fill and query them."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from feedsieve.message import Message, StoreUnavailable
from feedsieve.store.feed import Cursor
from feedsieve.store.store import MessageStore

MODEL = "classifier:one"
THRESHOLD = 0.5

Location = str | Path
"""A file or a URL. Tests with the fixture `location` or `store` run in test_postgres.py too."""

SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Lets test_postgres.py run the same properties in one session."""


@pytest.fixture(scope="session")
def new_location(tmp_path_factory) -> Callable[[], Location]:
    """Return a function that gives the location of a new store."""
    return lambda: tmp_path_factory.mktemp("store") / "store.db"


@pytest.fixture
def location(new_location) -> Location:
    return new_location()


@pytest.fixture
def store(location) -> Iterator[MessageStore]:
    store = MessageStore.open(location)
    yield store
    store.close()


def query(location: Location, statement: str, *values: object) -> list[Any]:
    connect: Any = sqlite3.connect if isinstance(location, Path) else psycopg.connect
    with closing(connect(location)) as connection:
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
    return rows


def history(location: Location) -> list[tuple[str, str]]:
    return query(location, "SELECT id, text FROM message_history ORDER BY id, text")


def content(location: Location) -> list[Any]:
    """Return everything that an import writes."""
    tables = ("messages", "message_history", "texts", "dump_extents")
    return [query(location, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def chat(count: int, start: int = 0) -> list[Message]:
    return [Message(f"m{number:05}", f"text {number}") for number in range(start, start + count)]


def score_all(store: MessageStore, score: Callable[[str], float], model: str = MODEL) -> None:
    store.start_model(model, THRESHOLD)
    missing = store.unscored(model, 10_000)
    store.save_scores(model, [(print_, score(text)) for print_, text in missing])


def complete(store: MessageStore, model: str) -> None:
    store.start_model(model, THRESHOLD)
    store.mark_complete(model)


def pages(store: MessageStore, limit: int, model: str = MODEL) -> list[Any]:
    page = store.feed(model, limit)
    following = [page]
    while page.next and len(following) < 100:
        page = store.feed(model, limit, Cursor.decode(page.next.encode()))
        following.append(page)
    return following


def score_of(store, model, identifier):
    [scored] = store.find(model, [identifier]).values()
    return scored.score


def make_dump(path: Path, count: int = 3) -> Path:
    query(path, "CREATE TABLE raw_rent_messages (msg_id INTEGER PRIMARY KEY, msg TEXT)")
    for number in range(count):
        query(path, "INSERT INTO raw_rent_messages VALUES (?, ?)", number, f"text {number}")
    return path


def write_many(location: Location, writer: int) -> None:
    """Add messages, half of them shared by all writers, and score them."""
    store = MessageStore.open(location)
    for start in range(0, 200, 20):
        added = [*chat(20, start), *chat(20, 1000 * (writer + 1) + start)]
        store.add(reversed(added) if writer % 2 else added)
        score_all(store, lambda text: 0.5)
    store.close()


@contextmanager
def locked(location: Location) -> Iterator[None]:
    """Hold the lock of another writer."""
    other = MessageStore.open(location)
    with other._transaction(writes=True):
        yield
    other.close()


def refusal(location: Location) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        MessageStore.open(location)
    return str(caught.value)
