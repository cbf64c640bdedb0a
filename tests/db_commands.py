"""The commands of `feedsieve db` in tests: fixtures for their store, and functions to run them."""

import itertools
from pathlib import Path

import pytest
from stores import chat, content, query, score_all

from feedsieve.__main__ import main
from feedsieve.message import Message
from feedsieve.settings import settings
from feedsieve.store.store import MessageStore

NUMBERS = itertools.count()


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Return a function that makes a place the store of the commands."""

    def choose(location) -> None:
        monkeypatch.setenv("FEEDSIEVE_DB", str(location))
        monkeypatch.setenv("FEEDSIEVE_STATE", str(tmp_path / "state"))
        settings.cache_clear()

    yield choose
    settings.cache_clear()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path, environment):
    """The location of a new store, which is that of the commands."""
    location = tmp_path / "store.db"
    if request.param == "postgresql":
        location = new_schema(request.getfixturevalue("postgres"))
    environment(location)
    return location


def new_schema(server) -> str:
    name = f"backup{next(NUMBERS)}"
    server.run(f"CREATE SCHEMA {name}")
    return f"{server.url('postgres')}?options=-csearch_path%3D{name}"


def fill(location, count: int = 30) -> MessageStore:
    store = MessageStore.open(location)
    store.add(chat(count))
    store.add([Message("m00001", "edited\\. \tand\nmore")])
    score_all(store, lambda text: len(text) % 7 / 7)
    store.delete("m00002", "a person")
    return store


def change(location, statement: str) -> None:
    query(location, f"{statement} RETURNING 1")


def everything(location):
    tables = ("sources", "scores", "models", "deletions", "labels")
    return content(location) + [
        query(location, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables
    ]


def run(*arguments) -> int:
    return main(["db", *map(str, arguments)])


def failure(capsys, *arguments) -> str:
    assert run(*arguments) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in line
    return line


def damage(path: Path) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * 20_000 + whole[middle + 20_000 :])
