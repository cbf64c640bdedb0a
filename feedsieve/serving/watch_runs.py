"""Watchers as they run: the command `feedsieve watch`, and a thread of the service."""

import asyncio
import logging
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress

from feedsieve import metrics
from feedsieve.message import StoreUnavailable
from feedsieve.serving.watching import HasStore, OpenStore, Watcher, sqlite_file
from feedsieve.settings import Settings
from feedsieve.sources.live.opening import SourceOptions, label_of, open_source, split_sources
from feedsieve.sources.live.source import InvalidSource, LiveSource
from feedsieve.store.store import MessageStore

_log = logging.getLogger("feedsieve")


def watch_sources(names: Sequence[str], settings: Settings, *, once: bool) -> bool:
    """Follow live sources until SIGTERM, or once; return whether all went well.

    Raises InvalidSource and StoreUnavailable before anything is followed.
    """
    store = MessageStore.open(settings.db_to_fill, state_folder=settings.state)
    options = _options(settings, store)
    sources = [open_source(name, options) for name in names]
    watcher = Watcher(sources, OpenStore(store), settings.db_to_fill, once=once)
    return asyncio.run(_until_terminated(watcher))


async def _until_terminated(watcher: Watcher) -> bool:
    run = asyncio.ensure_future(watcher.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    try:
        return await run
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():  # by Ctrl-C
            raise
        return True


class WatchThread:
    """A thread of the service that follows the sources in the settings, if there are any."""

    def __init__(self, settings: Settings, holder: HasStore) -> None:
        self._settings = settings
        self._holder = holder
        self._names = split_sources(settings.sources)
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: asyncio.Task[bool] | None = None
        self.thread = threading.Thread(target=self._work, name="watching", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._names:
            self.thread.start()

    def stop(self) -> None:
        """Let the thread end; do not wait for it."""
        self._stopping.set()
        if self._loop and self._run:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._run.cancel)

    def _work(self) -> None:
        store = self._wait_for_store()
        if store is None:
            return
        sources = self._open(_options(self._settings, store))
        with suppress(asyncio.CancelledError):
            asyncio.run(self._follow(Watcher(sources, self._holder, self._settings.db)))
        if not self._stopping.is_set():
            _log.error("no live source is left to follow; restart the server when it is mended")

    async def _follow(self, watcher: Watcher) -> None:
        self._loop = asyncio.get_running_loop()
        self._run = asyncio.create_task(watcher.run())
        if self._stopping.is_set():
            self._run.cancel()
        await self._run

    def _wait_for_store(self) -> MessageStore | None:
        while not self._stopping.wait(0.2):
            with suppress(StoreUnavailable):
                return self._holder.store
        return None

    def _open(self, options: SourceOptions) -> list[LiveSource]:
        """Return the sources that can be opened, and log why others cannot."""
        sources = []
        for name in self._names:
            try:
                sources.append(open_source(name, options))
            except InvalidSource as error:
                metrics.source_ended(label_of(name))
                _log.error("%s", error)
        return sources


def _options(settings: Settings, store: MessageStore) -> SourceOptions:
    file = sqlite_file(store)
    token = settings.telegram_token
    return SourceOptions(
        token=token.get_secret_value() if token else None,
        token_file=settings.telegram_token_file,
        api=settings.telegram_api,
        interval=settings.feed_interval,
        ignored=frozenset({file} if file else ()),
    )
