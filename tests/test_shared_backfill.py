"""Processes that share a store score each of its texts once together."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from postgres_server import postgres
from serving import ROOT
from stores import chat, query

from feedsieve.message import Message
from feedsieve.scoring.model_store import load_scorer
from feedsieve.serving.backfill import backfill
from feedsieve.serving.claims import PARTS, NoClaims, bounds, open_claims
from feedsieve.serving.watching import sqlite_file
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["postgres"]

TEXTS = 600
NUMBERS = itertools.count()

# Prints the number of texts after each batch, until all have scores; takes a batch for each line.
SERVER = """
import sys, time
from feedsieve.scoring.model_store import load_scorer
from feedsieve.serving.backfill import backfill
from feedsieve.serving.claims import open_claims
from feedsieve.serving.watching import sqlite_file
from feedsieve.store.store import MessageStore

location, pause = sys.argv[1:]
scorer, store = load_scorer("feedsieve-classifier:latest"), MessageStore.open(location)
print("ready", flush=True)
sys.stdin.readline()

def progress(count):
    print(count, flush=True)
    time.sleep(float(pause))

is_complete = False
while not is_complete:
    with open_claims(location, sqlite_file(store)) as claims:
        is_complete = backfill(store, scorer, progress=progress, at_once=16, claims=claims)
    time.sleep(0.1)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path) -> str:
    """A store of messages without scores."""
    place = str(tmp_path / "store.db")
    if request.param == "postgresql":
        server, schema = request.getfixturevalue("postgres"), f"shared{next(NUMBERS)}"
        server.run(f"CREATE SCHEMA {schema}")
        place = f"{server.url('postgres')}?options=-csearch_path%3D{schema}"
    store = MessageStore.open(place)
    store.add(chat(TEXTS))
    store.close()
    return place


@pytest.fixture
def start(small_home, location):
    """Return a function that starts a process, once its model is loaded."""
    processes = []

    def start_one(pause: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, location, str(pause)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(small_home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.wait()


def begin(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def scored(location: str) -> int:
    place = location if "://" in location else ROOT / location
    return query(place, "SELECT count(*) FROM scores")[0][0]


def test_two_processes_score_each_text_once(start, location):
    first, second = start(0.02), start(0.02)
    begin(first, second)
    counts = [
        sum(map(int, process.communicate(timeout=60)[0].split())) for process in (first, second)
    ]
    assert sum(counts) == TEXTS == scored(location)
    assert min(counts) > TEXTS / 5
    assert query_completed(location)


def query_completed(location: str) -> bool:
    place = location if "://" in location else ROOT / location
    return query(place, "SELECT completed_at IS NOT NULL FROM models") in ([(1,)], [(True,)])


def test_share_of_a_killed_process_is_taken_over(start, location):
    first, second = start(60), start(0)
    begin(first)
    done = int(first.stdout.readline())  # it now holds its claim for a minute
    begin(second)
    while scored(location) < TEXTS - TEXTS / 4:
        assert second.stdout.readline()
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    second.communicate(timeout=60)
    assert done < TEXTS
    assert second.returncode == 0
    assert scored(location) == TEXTS
    assert query_completed(location)


@pytest.fixture
def scorer(small_pair):
    return load_scorer(small_pair)


def of_part(part: int) -> Iterator[Message]:
    """Yield messages whose fingerprints are in a part, the first of all by default."""
    start, end = bounds(part)
    for number in itertools.count():
        text = f"ещё одно, {number}"
        if start < fingerprint(text) < end:
            yield Message(f"more {number}", text)


def test_texts_that_keep_coming_do_not_keep_a_model_incomplete(location, scorer):
    store, more = MessageStore.open(location), of_part(0)
    store.start_model("before", 0.5)
    store.mark_complete("before")
    unsaved = dict.fromkeys([fingerprint(chat(1)[0].text), fingerprint("saved by another")], 0.5)
    with open_claims(location, sqlite_file(store)) as claims:
        is_complete = backfill(
            store,
            scorer,
            unsaved,
            lambda _count: store.add([next(more)]),  # into a part that is finished already
            at_once=16,
            claims=claims,
        )
    assert is_complete and store.unscored(scorer.model, 1)
    assert store.shown_model(scorer.model) == scorer.model
    assert unsaved == {}


class AnotherServer(NoClaims):
    """Claims while another server has one part."""

    def __init__(self, its_part: int) -> None:
        self.its_part = its_part

    def claim(self, part: int) -> bool:
        return part != self.its_part


def test_model_is_complete_once_each_part_was_finished(location, scorer):
    store, finished = MessageStore.open(location), set()
    store.start_model("before", 0.5)
    store.mark_complete("before")
    lasting = next(of_part(7))
    store.add([lasting])
    assert not backfill(store, scorer, claims=AnotherServer(7), finished=finished)
    assert store.shown_model(scorer.model) == "before"
    store.add([next(of_part(40))])
    assert not backfill(store, scorer, claims=AnotherServer(40), finished=finished)
    assert store.shown_model(scorer.model) == scorer.model
    assert store.unscored(scorer.model, 9)


def test_each_fingerprint_is_in_one_part():
    ends = [bounds(part) for part in range(PARTS)]
    for text in map(str, range(2000)):
        key = fingerprint(text)
        assert sum(after < key < before for after, before in ends) == 1
    for key in ("0" * 32, "f" * 32, "04" + "0" * 30):
        assert sum(after < key < before for after, before in ends) == 1
