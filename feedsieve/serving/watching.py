"""Watching: live sources are followed into the store, several at once, from where they stopped."""

import asyncio
import logging
import random
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import make_url

from feedsieve import metrics
from feedsieve.errors import FeedsieveError
from feedsieve.message import StoreUnavailable
from feedsieve.serving import leases
from feedsieve.sources.live.passing_faults import FileUnavailable
from feedsieve.sources.live.source import Batch, LiveSource, SourceEnded, SourceUnavailable
from feedsieve.store.ingest import ImportCounts
from feedsieve.store.store import MessageStore

_log = logging.getLogger("feedsieve")

FIRST_DELAY = 1.0  # seconds before a source is tried again
LONGEST_DELAY = 300.0
LEASE_INTERVAL = 5.0  # seconds between two tries to get the lease that another process has
PROGRESS_INTERVAL = 10.0  # seconds between two log lines about one file
_MAX_ORIGIN = 200  # characters


class HasStore(Protocol):
    """A holder of a message store, which it may replace."""

    @property
    def store(self) -> MessageStore:
        """The store. Raises StoreUnavailable."""


class OpenStore:
    """A holder of a store that is opened anew if its file was replaced. For one thread."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    @property
    def store(self) -> MessageStore:
        """The store of the file that is there now.

        Raises StoreUnavailable, also if the file is gone: whoever took it away may bring another
        one, which would replace what is stored in a new one meanwhile.
        """
        location, file = self._store.location, sqlite_file(self._store)
        if file and not file.exists():
            reason = "the file is gone"
            raise StoreUnavailable(
                f"message store {location}: {reason}; put one there, or restart to begin anew",
                reason,
            )
        if self._store.is_replaced():
            _log.warning("%s is another file now; opening it again", location)
            replaced, self._store = self._store, MessageStore.open(location)
            replaced.close()
        return self._store


class Backoff:
    """Delays that double with each failure in a row, with jitter."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Start over: the source works."""
        self._failures = 0

    def delay(self, at_least: float = 0.0) -> float:
        """Return the seconds to wait after another failure."""
        longest = min(FIRST_DELAY * 2.0**self._failures, LONGEST_DELAY)
        self._failures = min(self._failures + 1, 30)
        return max(at_least, longest * random.uniform(0.5, 1.0))


class Watcher:
    """Follows live sources until it is cancelled, or goes over each of them once.

    A batch is stored, then its position is saved, then the next batch is asked for. So a process
    that is killed at any point misses no message, and storing one again changes nothing.
    """

    def __init__(
        self,
        sources: Iterable[LiveSource],
        holder: HasStore,
        location: str,
        *,
        once: bool = False,
    ) -> None:
        """`location` is that of the holder's store, with its password."""
        self._sources = list({source.key: source for source in sources}.values())
        self._holder = holder
        self._location = location
        self._once = once
        self._stopping = threading.Event()
        self._failures = 0
        self._asked: set[str] = set()  # keys of sources
        self._unavailable: dict[tuple[str, str], str] = {}  # files by source, and why
        for source in self._sources:
            metrics.source_added(source.label)

    async def run(self) -> bool:
        """Return once every source has ended, whether none has failed."""
        try:
            ended_well = await asyncio.gather(*map(self._follow, self._sources))
            return all(ended_well) and not self._failures
        finally:
            self._stopping.set()

    async def _follow(self, source: LiveSource) -> bool:
        """Follow one source; return whether it ended well."""
        backoff = Backoff()
        while True:
            retry_after = 0.0
            try:
                await self._follow_from_position(source, backoff)
                return True
            except SourceEnded as error:
                metrics.source_ended(source.label)
                _log.error("%s", error)
                return False
            except (SourceUnavailable, StoreUnavailable) as error:
                reason = str(error)
                retry_after = getattr(error, "retry_after", 0.0)
            except _Leased:
                reason = f"{source.label}: another process follows it into this store"
            except Exception as error:  # a bug must not end the other sources
                reason = f"{source.label}: {_place(error)}"
            self._count_failure(source)
            if self._once:
                _log.error("%s", reason)
                return False
            delay = backoff.delay(retry_after)
            _log.warning("%s; trying again in %.0f s", reason, delay)
            await asyncio.sleep(delay)

    async def _follow_from_position(self, source: LiveSource, backoff: Backoff) -> None:
        store = await self._open_store()
        async with self._lease(store, source) as lease:
            if source.key not in self._asked:
                # A source that never answers is silent from now on.
                metrics.WATCH_SUCCESS.labels(source.label).set_to_current_time()
                self._asked.add(source.key)
            position = await asyncio.to_thread(store.position, source.key)
            async with aclosing(source.batches(position, once=self._once)) as batches:
                async for batch in batches:
                    if self._holder.store is not store:
                        raise StoreUnavailable(f"{source.label}: the store was replaced")
                    if batch.messages or batch.position is not None:
                        await asyncio.to_thread(self._take, source, batch, store, lease)
                    metrics.WATCH_SUCCESS.labels(source.label).set_to_current_time()
                    backoff.reset()

    async def _open_store(self) -> MessageStore:
        """Return the store, once it is open; the holder logs why it is not."""
        while True:
            try:
                return self._holder.store
            except StoreUnavailable:
                if self._once:
                    raise
            await asyncio.sleep(FIRST_DELAY)

    @asynccontextmanager
    async def _lease(self, store: MessageStore, source: LiveSource) -> AsyncIterator[leases.Lease]:
        """Wait for the lease of a source and hold it during the block; with `once` do not wait."""
        file = sqlite_file(store)
        waits = False
        while not (
            lease := await asyncio.to_thread(leases.acquire, self._location, file, source.key)
        ):
            if self._once:
                raise _Leased
            if not waits:
                _log.info("%s: another process follows it; waiting for its end", source.label)
            waits = True
            await asyncio.sleep(LEASE_INTERVAL)
        _log.info("%s: following", source.label)
        try:
            yield lease
        finally:
            lease.release()

    def _take(
        self, source: LiveSource, batch: Batch, store: MessageStore, lease: leases.Lease
    ) -> None:
        """Store a batch, then save its position. Raises StoreUnavailable.

        The position is not saved if a file cannot be read for now: the source tries it again.
        """
        lease.check()
        try:
            progress = _Progress(source, batch, self._stopping)
            counts = store.add(batch.messages, progress, is_update=not batch.is_file)
            _log_batch(source, batch, counts)
            self._unavailable.pop((source.key, batch.origin), None)
        except StoreUnavailable:
            raise
        except FileUnavailable as error:
            self._failures += 1
            self._count_failure(source)
            self._log_unavailable(source, batch, str(error))
            return
        except Exception as error:
            if not batch.is_file or isinstance(error, _Stopped):
                raise
            # The file is passed over until it changes.
            self._failures += 1
            self._count_failure(source)
            is_expected = isinstance(error, FeedsieveError)
            reason = str(error) if is_expected else f"{batch.origin}: {_place(error)}"
            _log.error("%s: nothing was imported: %s", source.label, reason)
        if batch.position is not None:
            store.save_position(source.key, batch.position)

    def _log_unavailable(self, source: LiveSource, batch: Batch, reason: str) -> None:
        """Log why a file cannot be read for now, unless it is the reason of the last try."""
        file = source.key, batch.origin
        if self._unavailable.get(file) != reason:
            self._unavailable[file] = reason
            _log.error(
                "%s: nothing was imported: %s; it is tried again until it can be read",
                source.label,
                reason,
            )

    def _count_failure(self, source: LiveSource) -> None:
        metrics.WATCH_FAILURES.labels(source.label).inc()


class _Progress:
    """Logs how far a long batch has come, and ends it when the watcher stops."""

    def __init__(self, source: LiveSource, batch: Batch, stopping: threading.Event) -> None:
        self._what = f"{source.label}: {batch.origin}"
        self._stopping = stopping
        self._logged_at = time.monotonic()

    def __call__(self, count: int) -> None:
        if self._stopping.is_set():
            raise _Stopped
        if time.monotonic() - self._logged_at > PROGRESS_INTERVAL:
            self._logged_at = time.monotonic()
            _log.info("%s: %d messages so far", self._what, count)


class _Leased(Exception):
    """Another process follows the source."""


class _Stopped(Exception):
    """The watcher stops; what was not committed is imported next time."""


def _log_batch(source: LiveSource, batch: Batch, counts: ImportCounts) -> None:
    """Log one line: numbers and where the messages are from, never a text."""
    for change, count in (("new", counts.added), ("changed", counts.changed)):
        metrics.WATCHED.labels(source.label, change).inc(count)
    parts = [f"{counts.added} new, {counts.changed} changed"]
    if batch.origin:
        parts[0] += f" from {batch.origin[:_MAX_ORIGIN]}"
    if counts.unchanged:
        parts.append(f"{counts.unchanged} known already")
    parts += [f"{count} {reason}" for reason, count in sorted(batch.report.skipped.items())]
    parts += batch.report.notes
    _log.info("%s: %s", source.label, "; ".join(parts))


def _place(error: Exception) -> str:
    """Return the kind of an error and where it was raised; its message may quote a message."""
    [*_callers, frame] = traceback.extract_tb(error.__traceback__)
    return f"unexpected {type(error).__name__} in {frame.filename}, line {frame.lineno}"


def sqlite_file(store: MessageStore) -> Path | None:
    """Return the file of a store in SQLite, None for PostgreSQL."""
    url = make_url(store.location)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
