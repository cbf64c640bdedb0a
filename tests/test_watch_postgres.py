"""Leases and positions in PostgreSQL, where several machines may share a store."""

import signal
import subprocess
import sys
import time

import pytest
from postgres_server import postgres
from serving import ROOT
from stores import location, store
from test_postgres import new_location

from feedsieve.message import StoreUnavailable
from feedsieve.serving.leases import acquire
from feedsieve.serving.watching import sqlite_file
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "postgres", "store"]

HOLD = """
import sys, time
from feedsieve.serving.leases import acquire
assert acquire(sys.argv[1], None, "a")
print("held", flush=True)
time.sleep(60)
"""


def test_store_has_no_file(store):
    assert sqlite_file(store) is None


def test_only_one_holder_has_a_source_of_a_store_at_a_time(location, new_location):
    lease = acquire(location, None, "a")
    assert lease
    lease.check()
    assert acquire(location, None, "a") is None
    elsewhere = new_location()  # in another schema of this database
    MessageStore.open(elsewhere).close()
    others = [acquire(location, None, "b"), acquire(elsewhere, None, "a")]
    for other in [*others, lease]:
        assert other
        other.release()
    again = acquire(location, None, "a")
    assert again
    again.release()


def test_lease_of_a_killed_process_ends(location):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, location], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert acquire(location, None, "a") is None
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    deadline = time.monotonic() + 20
    while not (lease := acquire(location, None, "a")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lease.release()


def test_lost_session_is_noticed(location, postgres):
    lease = acquire(location, None, "a")
    assert lease
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    )
    with pytest.raises(StoreUnavailable, match="the lease of a live source is lost"):
        lease.check()
    lease.release()


def test_unreachable_server_is_one_line_without_the_password():
    url = "postgresql://tester:secret-word@127.0.0.1:1/none"
    with pytest.raises(StoreUnavailable, match="cannot be leased") as caught:
        acquire(url, None, "a")
    assert "secret-word" not in str(caught.value)


def test_positions_are_kept_in_the_store(store):
    assert store.position("a") is None
    store.save_position("a", "1")
    store.save_position("a", "2")
    assert store.position("a") == "2"
