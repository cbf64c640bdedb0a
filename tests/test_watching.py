"""Watching: several sources at once, from where they stopped, with back-off and leases."""

import asyncio
import bz2
import errno
import json
import logging
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from live_servers import TOKEN, Page, bot_api, feeds
from stores import location, new_location, query, store
from test_live_feeds import item, rss
from test_live_folder import write

from feedsieve.message import Message, StoreUnavailable
from feedsieve.metrics import WATCH_FAILURES, WATCHED
from feedsieve.serving import watching
from feedsieve.serving.leases import acquire
from feedsieve.serving.watching import Backoff, OpenStore, Watcher, sqlite_file
from feedsieve.sources import unpack
from feedsieve.sources.live import folder
from feedsieve.sources.live.feeds import Feed
from feedsieve.sources.live.folder import Folder
from feedsieve.sources.live.source import Batch, SourceEnded, SourceUnavailable
from feedsieve.sources.live.telegram_bot import TelegramBot
from feedsieve.store.store import MessageStore

__all__ = ["bot_api", "feeds", "location", "new_location", "store"]


@pytest.fixture(autouse=True)
def quick(monkeypatch, caplog):
    monkeypatch.setattr(watching, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(watching, "LEASE_INTERVAL", 0.05)
    caplog.set_level(logging.INFO, "feedsieve")


@dataclass
class Scripted:
    """A source that follows a script of batches and errors, and starts it anew after an error."""

    script: list[object]
    label: str = "scripted"
    key: str = "test:scripted"
    positions: list[str | None] = field(default_factory=list)

    async def batches(self, position, *, once):
        self.positions.append(position)
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step
            await asyncio.sleep(0)


def batch(position: str, *texts: str) -> Batch:
    messages = [Message(f"{position}-{n}", text, "Двор") for n, text in enumerate(texts)]
    return Batch(messages, position, "'Двор'")


def watch(store: MessageStore, *sources, once: bool = False) -> bool:
    async def run():
        holder = OpenStore(store)
        return await asyncio.wait_for(Watcher(sources, holder, store.location, once=once).run(), 20)

    return asyncio.run(run())


def texts(store: MessageStore) -> list[str]:
    return sorted(message.text for message in store.read_all())


class TestBatches:
    def test_position_is_saved_after_the_messages(self, store, monkeypatch):
        seen = []
        add = MessageStore.add
        save = MessageStore.save_position

        def note(name, call):
            def noting(self, *arguments, **options):
                seen.append((name, self.position("test:scripted"), self.count()))
                return call(self, *arguments, **options)

            return noting

        monkeypatch.setattr(MessageStore, "add", note("add", add))
        monkeypatch.setattr(MessageStore, "save_position", note("save", save))
        assert watch(store, Scripted([batch("1", "раз"), batch("2", "два")]))
        assert seen == [("add", None, 0), ("save", None, 1), ("add", "1", 1), ("save", "1", 2)]

    def test_next_run_gets_the_saved_position(self, store):
        watch(store, Scripted([batch("1", "раз")]))
        source = Scripted([])
        watch(store, source)
        assert source.positions == ["1"]

    def test_failed_store_is_tried_again_from_the_saved_position(self, store, monkeypatch, caplog):
        add = MessageStore.add
        failures = [StoreUnavailable("message store x: disk full")]

        def failing(self, *arguments, **options):
            if failures:
                raise failures.pop()
            return add(self, *arguments, **options)

        monkeypatch.setattr(MessageStore, "add", failing)
        source = Scripted([batch("1", "раз"), batch("1", "раз")])
        assert watch(store, source)
        assert (source.positions, texts(store)) == ([None, None], ["раз"])
        assert "message store x: disk full; trying again in" in caplog.text

    def test_log_has_numbers_and_titles_but_no_text(self, store, caplog):
        first = batch("1", "сокровенное", "ещё")
        first.report.skip("without text", 3)
        watch(store, Scripted([first, batch("1", "сокровенное!", "ещё")]))
        lines = [record.getMessage() for record in caplog.records if record.name == "feedsieve"]
        assert lines == [
            "scripted: following",
            "scripted: 2 new, 0 changed from 'Двор'; 3 without text",
            "scripted: 0 new, 1 changed from 'Двор'; 1 known already",
        ]

    def test_metrics_count_messages_by_source(self, store):
        def value(change):
            return WATCHED.labels("scripted", change)._value.get()

        new, changed = value("new"), value("changed")
        watch(store, Scripted([batch("1", "раз", "два"), batch("1", "три", "два")]))
        assert (value("new") - new, value("changed") - changed) == (2, 1)

    def test_bad_file_is_passed_over_and_the_next_one_stored(self, store, tmp_path, caplog):
        (tmp_path / "a.txt").write_text("заметки\n")
        write(tmp_path / "b.csv", "раз")
        assert not watch(store, Folder(tmp_path), once=True)
        assert texts(store) == ["раз"]
        [line] = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert line.startswith(f"{tmp_path}: nothing was imported: {tmp_path / 'a.txt'}, line 1")
        caplog.clear()
        assert watch(store, Folder(tmp_path), once=True)
        assert "nothing was imported" not in caplog.text

    @pytest.fixture
    def retried_soon(self, monkeypatch):
        for name in ("SETTLE_SECONDS", "_WAKE_SECONDS", "_SCAN_SECONDS", "_RETRY_SECONDS"):
            monkeypatch.setattr(folder, name, 0.1)

    def test_file_is_stored_once_there_is_room_to_unpack_it(
        self, store, tmp_path, monkeypatch, caplog, retried_soon
    ):
        exports, temporary = tmp_path / "exports", tmp_path / "temporary"
        exports.mkdir()
        (exports / "a.csv.bz2").write_bytes(bz2.compress("msg_id,msg\n1,раз\n".encode()))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        failures = WATCH_FAILURES.labels(str(exports))._value.get

        async def run():
            watcher = Watcher([Folder(exports)], OpenStore(store), store.location)
            following = asyncio.create_task(watcher.run())
            async with asyncio.timeout(20):
                while failures() < 3:
                    await asyncio.sleep(0.01)
                assert store.position(f"folder:{exports}") is None
                temporary.mkdir()
                while not store.position(f"folder:{exports}"):
                    await asyncio.sleep(0.01)
            following.cancel()

        asyncio.run(run())
        assert texts(store) == ["раз"]
        errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert len(errors) == 1 and "a.csv.bz2" in errors[0] and "is tried again" in errors[0]

    def test_file_that_cannot_be_read_for_now_does_not_keep_the_others_out(
        self, store, tmp_path, monkeypatch
    ):
        def full(*_arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (tmp_path / "a.csv.bz2").write_bytes(bz2.compress("msg_id,msg\n1,раз\n".encode()))
        write(tmp_path / "b.csv", "два")
        with monkeypatch.context() as patch:
            patch.setattr(unpack._Unpacking, "_copy", full)
            assert not watch(store, Folder(tmp_path), once=True)
        assert texts(store) == ["два"]
        assert watch(store, Folder(tmp_path), once=True)
        assert texts(store) == ["два", "раз"]

    def test_unexpected_error_of_a_file_is_one_line_without_its_text(self, store, caplog):
        def broken():
            yield Message("1", "раз")
            raise ZeroDivisionError("сокровенное")

        bad = Batch(broken(), "1", "'a.csv'", is_file=True)
        assert not watch(store, Scripted([bad, batch("2", "два")]))
        assert texts(store) == ["два"]
        assert "'a.csv': unexpected ZeroDivisionError in" in caplog.text
        assert "сокровенное" not in caplog.text

    def test_long_file_shows_progress(self, store, monkeypatch, caplog):
        monkeypatch.setattr(watching, "PROGRESS_INTERVAL", -1.0)
        many = [Message(str(number), "раз") for number in range(2500)]
        watch(store, Scripted([Batch(iter(many), "1", "'a.csv'", is_file=True)]))
        assert "scripted: 'a.csv': 2000 messages so far" in caplog.text


class TestSupervision:
    def test_several_sources_are_followed_at_once(self, store, tmp_path, bot_api, feeds):
        write(tmp_path / "a.csv", "из файла")
        feeds.pages["/feed"] = Page(rss(item("1", "из ленты")))
        bot_api.put(message_id=1, text="из чата")
        sources = [
            Folder(tmp_path),
            Feed(f"{feeds.url}/feed", 60),
            TelegramBot(TOKEN, bot_api.url),
        ]
        assert watch(store, *sources, once=True)
        assert texts(store) == ["из ленты", "из файла", "из чата"]

    def test_failing_source_is_tried_again_and_does_not_stop_the_others(self, store, caplog):
        failing = Scripted(
            [SourceUnavailable("a: no answer"), ZeroDivisionError("x"), batch("1", "раз")]
        )
        other = Scripted([batch("1", "два")], "other", "test:other")
        assert watch(store, failing, other)
        assert "a: no answer; trying again in" in caplog.text
        assert "scripted: unexpected ZeroDivisionError in" in caplog.text

    def test_source_that_ended_leaves_the_others(self, store, caplog):
        ended = Scripted([SourceEnded("telegram: rejects the token"), batch("1", "раз")])
        assert not watch(store, ended, Scripted([batch("1", "два")], "other", "test:other"))
        assert texts(store) == ["два"]
        assert ended.positions == [None]

    def test_pass_over_a_failing_source_is_not_repeated(self, store):
        source = Scripted([SourceUnavailable("a: no answer"), batch("1", "раз")])
        assert not watch(store, source, once=True)
        assert source.positions == [None]

    def test_source_is_tried_again_no_sooner_than_it_asks(self, store):
        source = Scripted([SourceUnavailable("a: busy", 0.5), batch("1", "раз")])
        started = time.monotonic()
        assert watch(store, source)
        assert time.monotonic() - started > 0.5

    def test_source_named_twice_is_followed_once(self, store):
        sources = [Scripted([batch("1", "раз")]), Scripted([batch("1", "раз")])]
        watch(store, *sources)
        assert [len(source.positions) for source in sources] == [0, 1]

    def test_replaced_store_gets_the_source_from_its_own_position(self, store, tmp_path):
        other = MessageStore.open(tmp_path / "other.db")

        @dataclass
        class Holder:
            stores: list[MessageStore]

            @property
            def store(self):
                return self.stores[0] if len(self.stores) == 1 else self.stores.pop(0)

        source = Scripted([batch("1", "раз"), batch("2", "два"), batch("2", "два")])
        holder = Holder([store, store, other])
        watcher = Watcher([source], holder, store.location)
        asyncio.run(asyncio.wait_for(watcher.run(), 20))
        assert (texts(store), texts(other)) == (["раз"], ["два"])
        assert source.positions == [None, None]

    def test_delays_double_up_to_a_limit_and_start_over(self, monkeypatch):
        monkeypatch.setattr(watching, "FIRST_DELAY", 1.0)
        backoff = Backoff()
        delays = [backoff.delay() for _ in range(20)]
        assert all(2**n / 2 <= delay <= 2**n for n, delay in enumerate(delays[:8]))
        assert all(150 <= delay <= 300 for delay in delays[9:])
        assert len({round(delay, 6) for delay in delays[9:]}) > 1  # jitter
        backoff.reset()
        assert backoff.delay() <= 1
        assert backoff.delay(at_least=500) == 500

    def test_stopped_import_stores_nothing_and_saves_no_position(self, store):
        reading = threading.Event()

        def long():
            for number in range(300_000):  # half a minute
                reading.set()
                yield Message(str(number), "раз")

        async def run():
            source = Scripted([Batch(long(), "1", "'a.csv'", is_file=True)])
            running = asyncio.create_task(Watcher([source], OpenStore(store), store.location).run())
            await asyncio.to_thread(reading.wait, 10)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        started = time.monotonic()
        asyncio.run(run())  # waits for the thread that imports
        assert time.monotonic() - started < 10
        assert (store.count(), store.position("test:scripted")) == (0, None)


class TestLeases:
    def test_only_one_holder_has_a_source_at_a_time(self, store):
        file = sqlite_file(store)
        lease = acquire(store.location, file, "a")
        assert lease
        assert acquire(store.location, file, "a") is None
        other = acquire(store.location, file, "b")
        assert other
        other.release()
        lease.check()
        lease.release()
        again = acquire(store.location, file, "a")
        assert again
        again.release()

    def test_second_watcher_waits_and_takes_over(self, store, caplog):
        lease = acquire(store.location, sqlite_file(store), "test:scripted")
        assert lease
        threading.Timer(0.5, lease.release).start()
        assert watch(store, Scripted([batch("1", "раз")]))
        assert "scripted: another process follows it; waiting for its end" in caplog.text

    def test_pass_does_not_wait_for_another_watcher(self, store, caplog):
        lease = acquire(store.location, sqlite_file(store), "test:scripted")
        assert lease
        assert not watch(store, Scripted([batch("1", "раз")]), once=True)
        lease.release()
        assert "another process follows it into this store" in caplog.text
        assert store.count() == 0

    def test_lock_file_is_hidden_beside_the_store(self, store):
        lease = acquire(store.location, sqlite_file(store), "a")
        assert lease
        lease.release()
        [file] = Path(str(sqlite_file(store))).parent.glob(".*")
        assert file.name.startswith(".store.db.watch-")

    def test_folder_that_may_not_be_written_is_one_line(self, tmp_path):
        with pytest.raises(StoreUnavailable, match="cannot be locked: No such file"):
            acquire("", tmp_path / "missing" / "store.db", "a")


def test_positions_are_kept_in_the_store(store, location):
    assert store.position("a") is None
    store.save_position("a", json.dumps({"offset": 1}))
    store.save_position("a", json.dumps({"offset": 2}))
    store.save_position("b", "x")
    assert (store.position("a"), store.position("b")) == ('{"offset": 2}', "x")
    assert query(location, "SELECT count(*) FROM watch_positions") == [(2,)]
