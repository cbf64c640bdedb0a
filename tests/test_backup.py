"""`feedsieve db backup` and `restore`: nothing is lost, and nothing is left behind."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from db_commands import (
    change,
    damage,
    environment,
    everything,
    failure,
    fill,
    new_schema,
    place,
    run,
)
from limits import largest_file
from postgres_server import IN_URL, PASSWORD, postgres
from serving import ROOT
from stores import chat, make_dump, query

from feedsieve.message import Message
from feedsieve.store.store import MessageStore

__all__ = ["environment", "place", "postgres"]

WRITE = """
import itertools, sys
from feedsieve.message import Message
from feedsieve.store.store import MessageStore
store = MessageStore.open(sys.argv[1])
for number in itertools.count():
    store.add([Message(f"new{number}", f"text {number}")])
    print(f"new{number}", flush=True)
"""


class TestBackup:
    def test_writers_go_on_and_lose_nothing(self, place, tmp_path, capsys):
        fill(place, 2000).close()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            acknowledged = {writer.stdout.readline().strip() for _ in range(20)}
            assert run("backup", tmp_path / "copy") == 0
            for _ in range(20):
                assert writer.stdout.readline()  # it still writes
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        MessageStore.open(place).delete("new0", "a person")
        assert run("restore", tmp_path / "copy", "--force") == 0
        store = MessageStore.open(place)
        assert all(store.get(identifier) for identifier in acknowledged)
        store.close()

    def test_copy_is_for_its_owner_and_alone(self, place, tmp_path):
        fill(place).close()
        (tmp_path / "backups").mkdir()
        copy = tmp_path / "backups" / "copy"
        assert run("backup", copy) == 0
        assert list(copy.parent.iterdir()) == [copy]
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    def test_existing_file_is_replaced_only_by_force(self, place, tmp_path, capsys):
        fill(place).close()
        copy = tmp_path / "copy"
        copy.write_text("precious")
        assert "--force" in failure(capsys, "backup", copy)
        assert copy.read_text() == "precious"
        assert run("backup", copy, "--force") == 0
        assert copy.stat().st_size > 100

    @pytest.mark.parametrize("target", ["there", "nowhere/copy", "store.db", "store.db-wal"])
    def test_impossible_target_is_one_line(self, tmp_path, environment, capsys, target):
        environment(tmp_path / "store.db")
        store = fill(tmp_path / "store.db")
        (tmp_path / "there").mkdir()
        before = sorted(tmp_path.iterdir())
        assert target in failure(capsys, "backup", tmp_path / target, "--force")
        assert sorted(tmp_path.iterdir()) == before
        assert store.count() == 29
        store.close()

    def test_missing_store_is_named_and_not_made(self, place, tmp_path, capsys):
        assert "there is no" in failure(capsys, "backup", tmp_path / "copy")
        assert not list(tmp_path.iterdir())

    def test_full_disk_leaves_nothing_behind(self, place, tmp_path, capsys):
        fill(place, 5000).close()
        backups = tmp_path / "backups"
        backups.mkdir()
        with largest_file(50_000):
            assert "copy" in failure(capsys, "backup", backups / "copy")
        assert not list(backups.iterdir())

    def test_damaged_store_makes_no_backup(self, tmp_path, environment, capsys):
        path = tmp_path / "store.db"
        environment(path)
        fill(path, 3000).close()
        damage(path)
        assert "damaged" in failure(capsys, "backup", tmp_path / "copy")
        assert list(tmp_path.iterdir()) == [path]


class TestRestore:
    def test_round_trip_restores_everything(self, place, tmp_path, capsys):
        store = fill(place)
        before = everything(place)
        assert run("backup", tmp_path / "copy") == 0
        store.add(chat(10, 100))
        changed = everything(place)
        assert "has 39 messages; --force" in failure(capsys, "restore", tmp_path / "copy")
        assert everything(place) == changed
        assert run("restore", tmp_path / "copy", "--force") == 0
        assert everything(place) == before
        assert store.count() == 29  # a store that was open all the time
        assert store.add(chat(1, 50)).added == 1  # numbers go on
        store.add([Message("1", "of another source", "other")])
        [replaced] = capsys.readouterr().out.split("the replaced store is ")[1:]
        kept = replaced_store(place, replaced.strip())
        assert everything(kept) == changed
        store.close()

    def test_new_store_is_made_of_a_backup(self, place, tmp_path, request, environment):
        fill(place).close()
        before = everything(place)
        assert run("backup", tmp_path / "copy") == 0
        other = tmp_path / "new" / "other.db"
        if "://" in str(place):
            other = new_schema(request.getfixturevalue("postgres"))
        environment(other)
        assert run("restore", tmp_path / "copy") == 0
        assert everything(other) == before

    def test_damaged_backup_is_refused(self, place, tmp_path, capsys):
        store = fill(place, 3000)
        copy = tmp_path / "copy"
        assert run("backup", copy) == 0
        whole = copy.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"PGDMP", b"SQLite format 3\0"):
            copy.write_bytes(damaged)
            assert str(copy) in failure(capsys, "restore", copy, "--force")
        copy.write_bytes(whole)
        damage(copy)
        assert str(copy) in failure(capsys, "restore", copy, "--force")
        assert store.count() == 2999
        store.close()
        assert run("check") == 0

    def test_backup_of_a_newer_version_is_refused(self, place, tmp_path, capsys):
        store = fill(place)
        change(place, "UPDATE feedsieve_revision SET version_num = '999'")
        copy = tmp_path / "copy"
        assert run("backup", copy) == 0
        assert "newer version of feedsieve (its schema is 999" in failure(
            capsys, "restore", copy, "--force"
        )
        assert store.count() == 29
        store.close()

    def test_backup_of_an_earlier_version_is_migrated(self, tmp_path, environment):
        """tests/earlier has a store of the first version."""
        earlier, path = tmp_path / "earlier.db", tmp_path / "store.db"
        shutil.copyfile(ROOT / "tests" / "earlier" / "messages.db", earlier)
        whole = earlier.read_bytes()
        expected = query(earlier, "SELECT id, text FROM messages ORDER BY id")
        environment(path)
        assert run("restore", earlier) == 0
        assert query(path, "SELECT id, text FROM messages ORDER BY id") == expected
        assert run("check") == 0
        assert earlier.read_bytes() == whole
        assert {file.name for file in tmp_path.iterdir()} == {"earlier.db", "store.db"}

    @pytest.mark.parametrize("kind", ["text", "dump", "none", "folder", "itself"])
    def test_other_file_is_refused(self, place, tmp_path, capsys, kind):
        store = fill(place)
        other = tmp_path / "other"
        if kind == "text":
            other.write_text("not a database")
        elif kind == "dump":
            make_dump(other)
        elif kind == "folder":
            other.mkdir()
        elif kind == "itself" and isinstance(place, Path):
            other = place
        assert other.name in failure(capsys, "restore", other, "--force")
        assert store.count() == 29
        store.close()

    def test_full_disk_keeps_the_store(self, tmp_path, environment, capsys):
        path = tmp_path / "store.db"
        environment(path)
        fill(path, 3000).close()
        assert run("backup", tmp_path / "copy") == 0
        store = MessageStore.open(path)
        store.add(chat(10, 9000))
        before, files = everything(path), sorted(file.name for file in tmp_path.iterdir())
        for limit in (50_000, path.stat().st_size + 30_000):
            with largest_file(limit):
                assert run("restore", tmp_path / "copy", "--force") == 1
            assert everything(path) == before
        left = {file.name for file in tmp_path.iterdir()} - set(files)
        assert all("replaced" in name for name in left)
        store.close()

    def test_store_that_sqlite_cannot_open_is_put_aside(self, tmp_path, environment, capsys):
        path = tmp_path / "store.db"
        environment(path)
        fill(path).close()
        before = everything(path)
        assert run("backup", tmp_path / "copy") == 0
        open_elsewhere = MessageStore.open(path)
        damaged = b"\xff" * 100 + path.read_bytes()[100:]
        path.write_bytes(damaged)
        assert "cannot be read; --force" in failure(capsys, "restore", tmp_path / "copy")
        assert run("restore", tmp_path / "copy", "--force") == 0
        assert everything(path) == before
        assert open_elsewhere.is_replaced()
        [kept] = tmp_path.glob("store.db.replaced-*[0-9]")
        assert kept.read_bytes() == damaged

    def test_backup_with_pages_of_another_size_is_restored(self, tmp_path, environment):
        path, copy = tmp_path / "store.db", tmp_path / "copy"
        environment(path)
        fill(path).close()
        before = everything(path)
        assert run("backup", copy) == 0
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("VACUUM")
        assert run("restore", copy, "--force") == 0
        assert everything(path) == before


def replaced_store(place, named: str):
    if isinstance(place, Path):
        assert Path(named).parent == place.parent
        return Path(named)
    return f"{place.partition('?')[0]}?options=-csearch_path%3D{named.removeprefix('schema ')}"


class TestPostgres:
    @pytest.fixture
    def store(self, postgres, environment):
        place = new_schema(postgres)
        environment(place)
        store = fill(place)
        yield store
        store.close()

    @staticmethod
    def instead_of(program: str, script: str, folder: Path, monkeypatch) -> None:
        file = folder / "bin" / program
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    def test_password_is_not_among_the_arguments(self, store, tmp_path, monkeypatch, caplog):
        real = shutil.which("pg_dump")
        record = f'printf "%s\n" "$@" > {tmp_path}/seen; exec {real} "$@"'
        self.instead_of("pg_dump", record, tmp_path, monkeypatch)
        assert run("backup", tmp_path / "copy") == 0
        seen = (tmp_path / "seen").read_text() + caplog.text
        assert "tester@127.0.0.1" in seen
        assert PASSWORD not in seen and IN_URL not in seen

    def test_missing_program_names_its_package(self, store, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        line = failure(capsys, "backup", tmp_path / "copy")
        assert "pg_dump is not installed" in line and "postgresql-client" in line

    def test_old_program_names_the_version_to_install(self, store, tmp_path, monkeypatch, capsys):
        said = "pg_dump: error: aborting because of server version mismatch\n"
        said += "pg_dump: detail: server version: 17.2 (Debian 17.2-1); pg_dump version: 15.18"
        script = f'printf "%s\n" "{said}" >&2; exit 1'
        self.instead_of("pg_dump", script, tmp_path, monkeypatch)
        line = failure(capsys, "backup", tmp_path / "copy")
        assert "pg_dump 15.18" in line and "install postgresql-client-17" in line

    def test_unreachable_server_is_one_line(self, environment, tmp_path, capsys):
        environment("postgresql://tester:secret-word@127.0.0.1:1/none")
        assert "secret-word" not in failure(capsys, "backup", tmp_path / "copy")

    def test_backup_of_the_other_database_names_the_way(self, store, tmp_path, environment, capsys):
        fill(tmp_path / "store.db").close()
        line = failure(capsys, "restore", tmp_path / "store.db", "--force")
        assert "not a backup of a store in PostgreSQL" in line
        assert "feedsieve import" in line

    def test_earlier_version_is_migrated(self, postgres, environment, tmp_path):
        """Also from a schema into another one."""
        from test_migrations import migrations, row, text, writing

        place = new_schema(postgres)
        with writing(place) as connection:
            migrations.upgrade(connection, "1")
            connection.execute(
                text(
                    "INSERT INTO messages (id, text, channel, time, fingerprint, seen_at)"
                    " VALUES (:id, :text, :channel, :time, :fingerprint, :seen_at)"
                ),
                [row("a", "one", "flats"), row("b", "two")],
            )
        environment(place)
        assert run("backup", tmp_path / "copy") == 0
        other = new_schema(postgres)
        environment(other)
        assert run("restore", tmp_path / "copy") == 0
        assert query(other, "SELECT id, text FROM messages ORDER BY 1") == [
            ("a", "one"),
            ("b", "two"),
        ]
        assert query(other, "SELECT count(*) FROM curated_messages") == [(2,)]
