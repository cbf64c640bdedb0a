"""A folder of exports, followed with watchfiles."""

import asyncio
import bz2
import errno
import gzip
import json
import os
import sqlite3
import time
from contextlib import aclosing
from pathlib import Path
from tempfile import gettempdir

import pytest

from feedsieve.message import InvalidFile
from feedsieve.sources.live import folder as folder_module
from feedsieve.sources.live.folder import Folder
from feedsieve.sources.live.passing_faults import FileUnavailable, is_passing
from feedsieve.sources.live.source import SourceUnavailable


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(folder_module, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(folder_module, "_WAKE_SECONDS", 0.1)


def write(path: Path, *texts: str) -> Path:
    path.write_text("msg_id,msg\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))
    return path


def read(batch) -> list[str]:
    return [message.text for message in batch.messages]


def once(folder: Path, position: str | None = None, ignored=frozenset()):
    """Return the batches of files that one pass yields."""

    async def collect():
        async with aclosing(Folder(folder, ignored).batches(position, once=True)) as batches:
            return [batch async for batch in batches if batch.is_file]

    return asyncio.run(asyncio.wait_for(collect(), 20))


def follow(folder: Path, act, count: int, position: str | None = None):
    """Return the texts of `count` files while `act` changes the folder from a thread."""

    async def collect():
        found = []
        async with aclosing(Folder(folder).batches(position, once=False)) as batches:
            await anext(batches)  # the first scan is over
            acting = asyncio.create_task(asyncio.to_thread(act))
            async for batch in batches:
                if batch.is_file:
                    found.append(read(batch))
                if len(found) == count:
                    break
            await acting
        return found

    return asyncio.run(asyncio.wait_for(collect(), 20))


class TestOnce:
    def test_files_are_read_the_one_that_changed_first_first(self, tmp_path):
        write(tmp_path / "b.csv", "раз")
        time.sleep(0.02)
        write(tmp_path / "a.csv", "два")
        batches = once(tmp_path)
        assert [batch.origin for batch in batches] == ["'b.csv'", "'a.csv'"]
        assert [read(batch) for batch in batches] == [["раз"], ["два"]]

    def test_second_pass_reads_only_what_changed(self, tmp_path):
        for name in ("a.csv", "b.csv"):
            write(tmp_path / name, "раз")
        [*_, last] = once(tmp_path)
        assert once(tmp_path, last.position) == []
        write(tmp_path / "b.csv", "раз", "два")
        [changed] = once(tmp_path, last.position)
        assert read(changed) == ["раз", "два"]

    def test_file_of_the_same_size_and_time_is_read_again_if_replaced(self, tmp_path):
        file = write(tmp_path / "a.csv", "раз")
        [first] = once(tmp_path)
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        os.utime(write(tmp_path / ".new", "два"), ns=times)
        (tmp_path / ".new").replace(file)
        [second] = once(tmp_path, first.position)
        assert read(second) == ["два"]

    def test_message_without_a_source_has_that_of_its_file(self, tmp_path):
        write(tmp_path / "двор.2024.csv", "раз")
        (tmp_path / "named.csv").write_text("msg_id,msg,channel\n1,два,Соседи\n")
        sources = {message.source for batch in once(tmp_path) for message in batch.messages}
        assert sources == {"file:двор", "name:Соседи"}

    def test_bad_file_raises_when_read_and_counts_as_read(self, tmp_path):
        (tmp_path / "notes.txt").write_text("просто заметки\n")
        [batch] = once(tmp_path)
        with pytest.raises(InvalidFile, match="notes.txt"):
            read(batch)
        assert once(tmp_path, batch.position) == []

    def test_subfolder_is_one_export(self, tmp_path):
        (tmp_path / "export" / "photos").mkdir(parents=True)
        write(tmp_path / "export" / "photos" / "one.csv", "раз")
        [batch] = once(tmp_path)
        assert batch.origin == "'export'"
        assert read(batch) == ["раз"]
        write(tmp_path / "export" / "photos" / "two.csv", "два")
        [batch] = once(tmp_path, batch.position)
        assert sorted(read(batch)) == ["два", "раз"]

    def test_archive_is_unpacked_and_its_fault_named(self, tmp_path):
        (tmp_path / "chat.csv.gz").write_bytes(gzip.compress("msg_id,msg\n1,раз\n".encode()))
        [batch] = once(tmp_path)
        assert read(batch) == ["раз"]
        (tmp_path / "chat.csv.gz").write_bytes(gzip.compress('msg_id,msg\n1,раз,"\n'.encode()))
        [batch] = once(tmp_path, batch.position)
        with pytest.raises(InvalidFile, match="line 2") as caught:
            read(batch)
        assert gettempdir() + "/feedsieve" not in str(caught.value)

    @pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.ESTALE])
    @pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.db", "a.csv.gz"])
    def test_fault_of_the_system_is_told_from_one_of_the_file(
        self, tmp_path, monkeypatch, name, fault
    ):
        path = tmp_path / name
        content = {
            "a.csv": b"msg_id,msg\n1,a\n",
            "a.json": b'[{"id": 1, "text": "a"}]',
            "a.jsonl": b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n',
            "a.db": b"SQLite format 3\0",
            "a.csv.gz": gzip.compress(b"msg_id,msg\n1,a\n"),
        }
        path.write_bytes(content[name])
        [batch] = once(tmp_path)
        open_file = Path.open

        def failing(self, *arguments, **options):
            if self == path:
                raise OSError(fault, os.strerror(fault))
            return open_file(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", failing)
        with pytest.raises(FileUnavailable, match=os.strerror(fault)):
            read(batch)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv.gz", gzip.compress(b"msg_id,msg\n1,a\n", mtime=0)[:-4]),
            ("b.csv.gz", b"\x1f\x8b\x08 this is not gzip"),
            ("a.csv.bz2", bz2.compress(b"msg_id,msg\n1,a\n")[:20] + b"damaged" * 9),
            ("a.zip", b"PK\x03\x04 this is not a zip file"),
            ("a.db", b"SQLite format 3\0 and nothing that follows"),
        ],
    )
    def test_damaged_file_is_not_tried_again(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        [batch] = once(tmp_path)
        with pytest.raises(InvalidFile) as caught:
            read(batch)
        assert not isinstance(caught.value, FileUnavailable)

    def test_what_is_no_export_is_left_out(self, tmp_path):
        names = [".hidden", "a.csv~", "a.csv.part", "b.crdownload", "c.TMP", "d.db-wal", "d.db-shm"]
        for name in [*names, "store.db"]:
            write(tmp_path / name, "раз")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
        (tmp_path / "empty").mkdir()
        assert once(tmp_path, ignored=frozenset({tmp_path / "store.db"})) == []

    def test_report_has_what_was_skipped(self, tmp_path):
        write(tmp_path / "a.csv", "раз", "", "три")
        [batch] = once(tmp_path)
        assert len(read(batch)) == 2
        assert batch.report.skipped == {"without text": 1}

    def test_removed_file_is_forgotten(self, tmp_path):
        gone = write(tmp_path / "a.csv", "раз")
        [first] = once(tmp_path)
        gone.unlink()
        write(tmp_path / "b.csv", "два")
        [second] = once(tmp_path, first.position)
        assert list(json.loads(second.position)) == ["b.csv"]

    @pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
    def test_what_is_no_folder_is_named(self, tmp_path, make):
        make(tmp_path / "exports")
        with pytest.raises(SourceUnavailable, match="exports: No.*expected a folder, `telegram:`"):
            once(tmp_path / "exports")


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_CORRUPT, False),
        (sqlite3.SQLITE_NOTADB, False),
    ],
)
def test_faults_of_the_system_are_known_by_the_codes_of_sqlite(code, passes):
    error = sqlite3.OperationalError("reason")
    error.sqlite_errorcode = code
    invalid = InvalidFile("a.db: reason")
    invalid.__cause__ = error
    assert is_passing(invalid) is passes


class TestFollowing:
    def test_new_and_changed_files_are_read(self, tmp_path):
        def act():
            write(tmp_path / "a.csv", "раз")
            time.sleep(1)
            write(tmp_path / "a.csv", "раз", "два")

        assert follow(tmp_path, act, 2) == [["раз"], ["раз", "два"]]

    def test_growing_file_is_read_when_it_is_complete(self, tmp_path):
        def act():
            with (tmp_path / "a.csv").open("w") as file:
                file.write("msg_id,msg\n")
                for number in range(10):
                    file.write(f"{number},текст\n")
                    file.flush()
                    time.sleep(0.1)

        assert follow(tmp_path, act, 1) == [["текст"] * 10]

    def test_file_with_a_time_in_the_future_is_read(self, tmp_path):
        def act():
            future = time.time() + 3600
            os.utime(write(tmp_path / "a.csv", "раз"), (future, future))

        assert follow(tmp_path, act, 1) == [["раз"]]

    def test_folder_that_is_removed_ends_with_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(folder_module, "_SCAN_SECONDS", 0.2)
        (tmp_path / "exports").mkdir()
        with pytest.raises(SourceUnavailable, match="exports: No such file"):
            follow(tmp_path / "exports", (tmp_path / "exports").rmdir, 1)
