"""A store whose file is replaced or taken away while live sources are followed into it."""

import asyncio
from pathlib import Path

import pytest
from live_servers import TOKEN, bot_api
from test_watching import Scripted, batch, quick, texts, watch

from feedsieve.message import StoreUnavailable
from feedsieve.serving.watching import OpenStore, Watcher
from feedsieve.sources.live.telegram_bot import TelegramBot
from feedsieve.store.store import MessageStore

__all__ = ["bot_api", "quick"]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store.db"


def follow(path: Path, bot_api, act) -> None:
    """Follow a bot into the store at a path while the coroutine `act` goes on."""

    async def run():
        store = MessageStore.open(path)
        watcher = Watcher([TelegramBot(TOKEN, bot_api.url)], OpenStore(store), str(path))
        following = asyncio.create_task(watcher.run())
        async with asyncio.timeout(20):
            await act()
        following.cancel()

    asyncio.run(run())


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def stored(path: Path) -> list[str]:
    store = MessageStore.open(path)
    found = texts(store)
    store.close()
    return found


def test_updates_are_stored_in_the_file_that_replaced_the_store(path, tmp_path, bot_api, caplog):
    MessageStore.open(tmp_path / "other.db").close()

    async def act():
        bot_api.put(message_id=1, text="раз")
        await until(lambda: stored(path) == ["раз"])
        for companion in tmp_path.glob("store.db-*"):
            companion.unlink()
        (tmp_path / "other.db").replace(path)
        bot_api.put(message_id=2, text="два")
        await until(lambda: not bot_api.updates)  # all are confirmed

    follow(path, bot_api, act)
    assert stored(path) == ["два"]
    assert caplog.text.count("is another file now; opening it again") == 1


def test_updates_are_not_confirmed_while_the_file_is_gone(path, tmp_path, bot_api, caplog):
    aside = tmp_path / "aside.db"

    async def act():
        bot_api.put(message_id=1, text="раз")
        await until(lambda: stored(path) == ["раз"] and not bot_api.updates)
        path.rename(aside)
        bot_api.put(message_id=2, text="два")
        await until(lambda: "the file is gone" in caplog.text)
        await asyncio.sleep(0.2)
        assert len(bot_api.updates) == 1 and not path.exists()
        aside.rename(path)
        await until(lambda: not bot_api.updates)

    follow(path, bot_api, act)
    assert stored(path) == ["два", "раз"]
    assert caplog.text.count("the file is gone") == 1


def test_batch_whose_write_finds_another_file_is_stored_in_it(path, tmp_path, monkeypatch):
    MessageStore.open(tmp_path / "other.db").close()
    add = MessageStore.add

    def replaced(self, *arguments, **options):
        if (tmp_path / "other.db").exists():
            self.close()
            (tmp_path / "other.db").replace(path)
            raise StoreUnavailable("message store: it is another file now")
        return add(self, *arguments, **options)

    monkeypatch.setattr(MessageStore, "add", replaced)
    source = Scripted([batch("1", "раз"), batch("1", "раз")])
    assert watch(MessageStore.open(path), source)
    assert stored(path) == ["раз"]
    assert source.positions == [None, None]
