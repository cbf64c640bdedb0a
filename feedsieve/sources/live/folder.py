"""A folder of exports: each file is read when it appears or changes."""

import asyncio
import json
import logging
import math
import os
import sqlite3
import stat
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from watchfiles import awatch

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.keys import file_key, name_key
from feedsieve.sources.live.passing_faults import FileUnavailable, is_passing
from feedsieve.sources.live.source import Batch, InvalidSource, SourceUnavailable
from feedsieve.sources.readers import read_messages
from feedsieve.sources.report import ReadReport
from feedsieve.sources.unpack import shown, unpacked

SETTLE_SECONDS = 2.0  # without a change, until a file counts as complete
_MAX_SETTLE_SECONDS = 60.0  # that `once` waits for
_RETRY_SECONDS = 300.0  # until a file is tried again that a full disk or a network kept out
_WAKE_SECONDS = 1.0
_SCAN_SECONDS = 30.0  # file systems of networks report no changes
_UNFINISHED = (
    "~", ".crdownload", ".download", ".lock", ".part", ".partial", ".swp", ".temp", ".tmp",
    "-journal", "-shm", "-wal",
)  # fmt: skip

Signature = list[int]
"""Files, bytes, and the time of the last change in nanoseconds. It tells whether to read again."""

logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes


class Folder:
    """The files and folders in a folder; a folder in it is one export of several files.

    Hidden files, unfinished downloads and the companions of SQLite files are left out, and so are
    the `ignored` ones, such as the message store.
    """

    def __init__(self, path: Path, ignored: frozenset[Path] = frozenset()) -> None:
        """Raises InvalidSource for the home of an unknown user, and for links in a circle."""
        self.label = str(path)
        try:
            self._path = path.expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise InvalidSource(f"{path}: not a folder: {error}") from error
        self.key = f"folder:{self._path}"
        self._ignored = ignored
        self._noticed: dict[str, tuple[Signature, float]] = {}  # since when a file has a signature
        self._put_off: dict[str, tuple[Signature, float]] = {}  # when to try a file again

    async def batches(self, position: str | None, *, once: bool) -> AsyncGenerator[Batch, None]:
        """Yield a batch for each file that is new or has changed, and has stopped growing.

        Its position counts the file as read, so that one that fails is read again only when it
        changes. One that raises FileUnavailable does not count, if its position is not saved: it
        is tried again, and does not keep the others out. Raises SourceUnavailable.
        """
        read: dict[str, Signature] = json.loads(position) if position else {}
        wakes = self._scan_once() if once else self._wakes()
        async with aclosing(wakes):
            async for present in wakes:
                for name in read.keys() - present.keys():
                    del read[name]
                for name in self._settled(read, present):
                    report = ReadReport()
                    messages = self._messages(name, present[name], report)
                    position = json.dumps(read | {name: present[name]})
                    yield Batch(messages, position, repr(name), report, is_file=True)
                    if name not in self._put_off:
                        read[name] = present[name]
                yield Batch()

    def _messages(self, name: str, signature: Signature, report: ReadReport) -> Iterator[Message]:
        self._put_off.pop(name, None)
        try:
            yield from _read(self._path / name, report)
        except (InvalidFile, OSError, sqlite3.Error) as error:
            if not is_passing(error):
                raise
            self._put_off[name] = signature, time.monotonic() + _RETRY_SECONDS
            raise FileUnavailable(str(error)) from error

    async def _wakes(self) -> AsyncGenerator[dict[str, Signature], None]:
        """Yield the files that are there, now and after each change."""
        yield await self._scan()
        scanned_at = -math.inf  # files may appear before changes are reported
        try:
            async with aclosing(self._changes()) as changes:
                async for changed in changes:
                    due = time.monotonic() - scanned_at > _SCAN_SECONDS
                    if changed or due or self._noticed:
                        scanned_at = time.monotonic()
                        yield await self._scan()
        except OSError as error:
            raise SourceUnavailable(f"{self.label}: cannot be watched: {error}") from error

    def _changes(self) -> AsyncGenerator[set[object], None]:
        return awatch(  # type: ignore[return-value]
            self._path,
            watch_filter=None,
            rust_timeout=round(_WAKE_SECONDS * 1000),
            yield_on_timeout=True,
        )

    async def _scan_once(self) -> AsyncGenerator[dict[str, Signature], None]:
        """Yield the files that are there, until all have stopped growing, for a bounded time."""
        deadline = time.monotonic() + _MAX_SETTLE_SECONDS
        while True:
            yield await self._scan()
            if not self._noticed or time.monotonic() > deadline:
                return
            await asyncio.sleep(_WAKE_SECONDS)

    async def _scan(self) -> dict[str, Signature]:
        try:
            return await asyncio.to_thread(self._signatures)
        except OSError as error:
            raise SourceUnavailable(
                f"{self.label}: {error.strerror or error}; expected a folder, `telegram:` or the"
                " URL of a feed"
            ) from error

    def _signatures(self) -> dict[str, Signature]:
        found = {}
        for path in sorted(self._path.iterdir()):
            if _is_unfinished(path.name) or path in self._ignored:
                continue
            if signature := _signature(path):
                found[path.name] = signature
        return found

    def _settled(self, read: dict[str, Signature], present: dict[str, Signature]) -> list[str]:
        """Return the files to read, the one that changed first first."""
        now, settled, noticed = time.monotonic(), [], {}
        for name, signature in present.items():
            failed, retry_at = self._put_off.get(name, (None, 0.0))
            if read.get(name) == signature or (failed == signature and now < retry_at):
                continue
            earlier, since = self._noticed.get(name, (signature, now))
            if earlier != signature:
                since = now
            age = max(now - since, time.time() - signature[-1] / 1e9)
            if age >= SETTLE_SECONDS:
                settled.append(name)
            else:
                noticed[name] = signature, since
        self._noticed = noticed
        return sorted(settled, key=lambda name: present[name][-1])


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def _signature(path: Path) -> Signature | None:
    """Return the signature of a file, or of all files in a folder; None if it is neither."""
    files = 0
    size = 0
    changed = 0
    for file in _files(path):
        try:
            status = file.stat()
        except OSError:
            continue  # a link to nowhere, or a file that was removed meanwhile
        if stat.S_ISREG(status.st_mode):
            files += 1
            size += status.st_size
            changed = max(changed, status.st_mtime_ns, status.st_ctime_ns)
    return [files, size, changed] if files else None


def _files(path: Path) -> Iterator[Path]:
    """Yield a file and its write-ahead log, or the files in a folder."""
    if not path.is_dir():
        yield from (path, path.with_name(f"{path.name}-wal"))
        return
    for folder, _folders, names in os.walk(path):
        for name in names:
            if not _is_unfinished(name):
                yield Path(folder, name)


def _read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a file, archive or folder, which is opened when the first is asked for.

    Messages without a source have their channel's, or else the file's.
    """
    with unpacked(path, report) as files:
        for file in files:
            messages = read_messages(file)
            try:
                for message in messages:
                    source = message.source or name_key(message.channel) or file_key(file)
                    yield replace(message, source=source)
            except InvalidFile as error:
                raise InvalidFile(shown(str(error))) from error
            finally:
                report.skipped.update(messages.report.skipped)
                for note in messages.report.lines():
                    report.note(note)
