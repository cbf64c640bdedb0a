"""Metrics of live sources that answer, that never do, and that cannot be opened."""

import asyncio
import time
from pathlib import Path

import pytest
from stores import location, new_location, store
from test_watching import Scripted, batch, quick, watch

from feedsieve.metrics import WATCH_ENDED, WATCH_FAILURES, WATCH_SUCCESS
from feedsieve.serving.watch_runs import WatchThread
from feedsieve.serving.watching import OpenStore, Watcher
from feedsieve.settings import Settings
from feedsieve.sources.live.opening import SourceOptions, open_source
from feedsieve.sources.live.source import InvalidSource, SourceEnded, SourceUnavailable

__all__ = ["location", "new_location", "quick", "store"]


def value(metric, label: str) -> float | None:
    """Return the value of a source's series, or None if there is none."""
    samples = [sample for family in metric.collect() for sample in family.samples]
    return next(
        (
            sample.value
            for sample in samples
            if sample.labels["source"] == label and not sample.name.endswith("_created")
        ),
        None,
    )


def test_failures_start_at_zero_before_the_source_is_asked(store):
    Watcher([Scripted([], "from zero", "test:from zero")], OpenStore(store), store.location)
    assert (value(WATCH_FAILURES, "from zero"), value(WATCH_ENDED, "from zero")) == (0, 0)
    assert value(WATCH_SUCCESS, "from zero") is None  # a replica may wait for another one


def test_source_that_ended_is_marked_and_the_others_are_not(store):
    ended = Scripted([SourceEnded("telegram: rejects the token")], "revoked", "test:revoked")
    assert not watch(store, ended, Scripted([batch("1", "раз")], "alive", "test:alive"))
    assert (value(WATCH_FAILURES, "revoked"), value(WATCH_ENDED, "revoked")) == (1, 1)
    assert (value(WATCH_FAILURES, "alive"), value(WATCH_ENDED, "alive")) == (0, 0)


def test_source_that_never_answers_has_the_time_of_its_first_try(store):
    started = time.time()
    source = Scripted([SourceUnavailable("busy", 0.5), SourceUnavailable("busy")], "mute", "test:m")

    async def run():
        following = asyncio.create_task(Watcher([source], OpenStore(store), store.location).run())
        async with asyncio.timeout(20):
            while value(WATCH_FAILURES, "mute") != 1:
                await asyncio.sleep(0.01)
            first = value(WATCH_SUCCESS, "mute")
            while value(WATCH_FAILURES, "mute") != 2:
                await asyncio.sleep(0.01)
        assert value(WATCH_SUCCESS, "mute") == first
        following.cancel()

    asyncio.run(run())
    assert started <= value(WATCH_SUCCESS, "mute") <= started + 0.5


def test_sources_that_cannot_be_opened_are_marked_and_the_others_followed(store, tmp_path):
    (tmp_path / "a.csv").write_text("msg_id,msg\n1,раз\n")
    labels = ("~nobody-here/x", "feed", "telegram", str(tmp_path))
    before = [value(WATCH_FAILURES, label) or 0 for label in labels]
    names = f"~nobody-here/x https:// telegram:secret-word {tmp_path}"
    thread = WatchThread(Settings(sources=names, db=store.location), OpenStore(store))
    thread.start()
    deadline = time.monotonic() + 20
    while not store.count():
        assert thread.thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    thread.stop()
    thread.thread.join(20)
    assert [value(WATCH_ENDED, label) for label in labels] == [1, 1, 1, 0]
    after = [value(WATCH_FAILURES, label) for label in labels]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 0]


@pytest.mark.parametrize("name", ["~nobody-here/x", "loop"])
def test_folder_without_a_place_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidSource, match=f"^{name}: not a folder: "):
        open_source(name, SourceOptions())


def test_token_file_of_an_unknown_user_is_one_line():
    options = SourceOptions(token_file=Path("~nobody-here/token"))
    with pytest.raises(InvalidSource, match="^telegram: ~nobody-here/token: there is no such user"):
        open_source("telegram:", options)
