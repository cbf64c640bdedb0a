"""The import of files into the message store, with one summary line for each file."""

from collections.abc import Sequence
from pathlib import Path

import click
from sqlalchemy import make_url
from tqdm import tqdm

from feedsieve.command import FAILED
from feedsieve.errors import FeedsieveError
from feedsieve.message import StoreUnavailable
from feedsieve.sources.naming import NamedMessages
from feedsieve.sources.readers import Format, read_messages
from feedsieve.sources.report import ReadReport, counted
from feedsieve.sources.unpack import shown, unpacked
from feedsieve.store.store import MessageStore

_SOURCES_IN_LINE = 3


class FileImport:
    """The import of files, one after the other. A bad file does not keep the others out."""

    def __init__(
        self,
        store: MessageStore | None,
        name: str | None = None,
        form: Format | None = None,
        *,
        is_update: bool = False,
    ) -> None:
        """Without a store, files are read and nothing is stored.

        `name` is the source of messages whose file does not name it, `form` the format of all
        files instead of the one that each is recognised as. `is_update` allows that a file replaces
        most texts of a source that is known by a name only.
        """
        self._store = store
        self._name = name if name and name.strip() else None
        self._form = form
        self._is_update = is_update
        self._bad: list[str] = []
        self._empty: list[str] = []

    def run(self, paths: Sequence[Path]) -> int:
        """Import the files and print a summary; return the exit code, 1 unless all had messages.

        Raises StoreUnavailable.
        """
        for path in paths:
            count = len(self._bad)
            if not self._import_path(path) and len(self._bad) == count:
                self._empty.append(str(path))
        if self._store is not None:
            click.echo(f"{self._store.location} now has {self._store.count():,} messages")
        for names, fault in ((self._bad, "not imported"), (self._empty, "no messages in")):
            if names:
                click.echo(f"feedsieve: {fault}: {', '.join(names)}", err=True)
        return FAILED if self._bad or self._empty else 0

    def _import_path(self, path: Path) -> int:
        """Import the file or files at a path; return how many messages were read."""
        if self._store and make_url(self._store.location).database == str(path.resolve()):
            click.echo(f"{path}: the message store itself; its messages are there already")
            return self._store.count()
        report = ReadReport()
        count = 0
        try:
            with unpacked(path, report) as files:
                for file in files:
                    is_only = len(files) == 1 and not path.is_dir()
                    name = str(path) if is_only else shown(str(file))
                    count += self._try_file(file, name)
        except StoreUnavailable:
            raise
        except FeedsieveError as error:
            self._report_bad(str(path), error)
        for line in report.lines():
            click.echo(f"  {line}")
        return count

    def _try_file(self, file: Path, name: str) -> int:
        try:
            return self._import_file(file, name)
        except StoreUnavailable:
            raise
        except FeedsieveError as error:
            self._report_bad(name, shown(str(error).replace(str(file), name)))
            return 0

    def _import_file(self, file: Path, name: str) -> int:
        messages = read_messages(file, self._form)
        named = NamedMessages(messages, file, self._name)
        bar = tqdm(named, name, unit=" messages", leave=False, delay=1)
        report = messages.report
        if self._store is None:
            count = sum(1 for _ in bar)
            outcome = f"{count:,} messages, not stored"
        else:
            counts = self._store.add(bar, is_update=self._is_update)
            count = counts.added + counts.changed + counts.unchanged + counts.deleted
            outcome = (
                f"{counts.added:,} new, {counts.changed:,} changed,"
                f" {counts.unchanged:,} known already"
            )
            if counts.deleted:
                report.skip("deleted from the store before", counts.deleted)
            for key, known in counts.recognised:
                report.note(f"{key} is {known}: it has its messages")
        sources = list(named.sources.values())
        if not count:
            outcome = "no messages"
        elif len(sources) <= _SOURCES_IN_LINE:
            outcome = f"{', '.join(map(str, sources))}: {outcome}"
        else:
            outcome = f"{len(sources):,} sources: {outcome}"
        skipped = f"; skipped: {counted(report.skipped)}" if report.skipped else ""
        click.echo(f"{name}: {report.format}, {outcome}{skipped}")
        if self._name and count and not named.is_name_used:
            report.note("--source is not used: the file names its sources")
        lines = report.lines()
        if len(sources) > _SOURCES_IN_LINE:
            lines += [f"{source}: {source.messages:,} messages" for source in sources]
        for line in lines:
            click.echo(f"  {line}")
        return count

    def _report_bad(self, name: str, reason: object) -> None:
        self._bad.append(name)
        click.echo(f"feedsieve: {reason}", err=True)
