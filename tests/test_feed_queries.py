"""Feeds whose URL has a query, perhaps with a token: it is shown nowhere, and stays one source."""

import pytest
from live_servers import Page, feeds
from prometheus_client import generate_latest
from stores import location, new_location, query, store
from test_live_feeds import item, rss
from test_watching import quick, watch

from feedsieve.__main__ import main
from feedsieve.message import Message
from feedsieve.settings import settings
from feedsieve.sources.keys import shown_key
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.live.feeds import Feed
from feedsieve.store.store import MessageStore

__all__ = ["feeds", "location", "new_location", "quick", "store"]

SECRET = "token=secret-word"


@pytest.fixture
def url(feeds) -> str:
    feeds.pages["/feed"] = Page(rss(item("1", "раз"), item("2", "два")))
    return f"{feeds.url}/feed?{SECRET}"


def test_query_is_neither_stored_nor_shown(store, location, url, caplog):
    assert watch(store, Feed(url, 60), once=True)
    sources = {message.source for message in store.read_all()}
    assert sources == {shown_key(f"rss:{url}")}
    assert query(location, "SELECT count(*) FROM messages") == [(2,)]
    assert SECRET not in caplog.text + generate_latest().decode() + repr(sources)


def test_failure_is_named_without_the_query(store, feeds, caplog):
    assert not watch(store, Feed(f"{feeds.url}/missing?{SECRET}", 60), once=True)
    assert "/missing#" in caplog.text and SECRET not in caplog.text


def test_source_of_an_earlier_version_stays_one_and_loses_its_query(store, location, url):
    earlier = [Message(name, "раз", "Лента", source=f"rss:{url}") for name in ("1", "3")]
    store.add(earlier)
    store.delete("3", "vera")
    feeds_items = [Message("3", "раз", "Лента", source=shown_key(f"rss:{url}"))]
    assert watch(store, Feed(url, 60), once=True)
    assert store.save_messages(feeds_items)[0].outcome == "deleted"
    assert {message.id for message in store.read_all()} == {"1", "2"}
    assert query(location, "SELECT key FROM sources") == [(shown_key(f"rss:{url}"),)]


def test_file_with_the_earlier_key_is_of_the_same_source(store, url):
    watch(store, Feed(url, 60), once=True)
    counts = store.add([Message("1", "раз", "Другое имя", source=f"rss:{url}")])
    assert counts.added == 0
    [kept] = {(message.source, message.channel) for message in store.read_all()}
    assert kept == (shown_key(f"rss:{url}"), "Новости & двор")


def test_labels_are_exported_without_the_query_and_imported_to_the_earlier_source(
    tmp_path, monkeypatch, url
):
    store = MessageStore.open(tmp_path / "store.db")
    message = Message("1", "раз", source=f"rss:{url}")
    store.import_labels([LabelledMessage(message, "positive", "vera", None, "test")], "name:labels")
    monkeypatch.setenv("FEEDSIEVE_DB", str(tmp_path / "store.db"))
    settings.cache_clear()
    for options in ([], ["--resolved"]):
        assert main(["labels", "export", str(tmp_path / "labels.csv"), *options]) == 0
        assert SECRET not in (tmp_path / "labels.csv").read_text()
        assert main(["labels", "import", str(tmp_path / "labels.csv")]) == 0
    settings.cache_clear()
    assert [each.id for each in store.read_all()] == ["1"]
    assert store.get("1").source == shown_key(f"rss:{url}")
