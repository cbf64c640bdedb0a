import gc
import sys
from pathlib import Path
from typing import Any

import pytest
from limits import largest_file
from sqlalchemy import event
from stores import MODEL, chat, location, make_dump, new_location, query, refusal, score_all, store

from feedsieve.message import StoreUnavailable
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]


class TestUnavailable:
    def test_folder_is_rejected(self, tmp_path):
        assert refusal(tmp_path) == f"message store {tmp_path}: a folder, not a file"

    def test_other_file_is_rejected_and_unchanged(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("not a database")
        assert "not an SQLite database" in refusal(path)
        assert path.read_text() == "not a database"

    @pytest.mark.parametrize("table", ["messages", "scores", "models"])
    def test_database_of_another_program_is_rejected_and_unchanged(self, tmp_path, table):
        path = tmp_path / "other.db"
        query(path, f"CREATE TABLE {table} (id, text)")
        before = path.read_bytes()
        message = refusal(path)
        assert f"its table {table} is another program's: it has no column" in message
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_damaged_file_is_reported(self, store, location):
        store.add(chat(2000))
        store.close()
        whole = location.read_bytes()
        location.write_bytes(whole[:100] + b"\xff" * 5000)
        assert str(location) in refusal(location)
        location.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        with pytest.raises(StoreUnavailable, match="malformed"):
            MessageStore.open(location).sample(100)

    def test_read_only_file_that_is_no_dump_is_rejected(self, store, location):
        store.close()
        location.chmod(0o444)
        assert "may not be written, and it is not a chat dump" in refusal(location)

    @pytest.mark.parametrize("is_replaced", [False, True])
    def test_nothing_is_written_to_a_file_that_is_gone(self, store, location, is_replaced):
        store.add(chat(1))
        location.unlink()
        reason = "the file is gone"
        if is_replaced:
            MessageStore.open(location).close()
            reason = "the file was replaced"
        with pytest.raises(StoreUnavailable, match=reason):
            store.save_messages(chat(2))

    @pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors of a process")
    def test_failed_open_leaves_nothing_open(self, location, new_location):
        MessageStore.open(location).close()
        query(location, "UPDATE feedsieve_revision SET version_num = '99'")
        gc.disable()
        try:
            before = list(Path("/proc/self/fd").iterdir())
            for _ in range(5):
                assert "newer version" in refusal(location)
            assert list(Path("/proc/self/fd").iterdir()) == before
        finally:
            gc.enable()

    def test_folder_that_cannot_be_created_is_reported(self, tmp_path):
        (tmp_path / "file").touch()
        assert "File exists" in refusal(tmp_path / "file" / "store.db")

    def test_unknown_home_is_reported(self):
        assert "home directory" in refusal("~nobody-of-this-name/store.db")

    @pytest.mark.parametrize(
        "location", ["sqlite://", "sqlite:///:memory:", "sqlite:///a?uri=true"]
    )
    def test_store_in_memory_is_rejected(self, location):
        assert "cannot be shared by threads" in refusal(location)

    @pytest.mark.parametrize(
        "location",
        ["mysql://me:secret@host/db", "postgresql+absent://me:secret@host/db", "a b://me:secret@h"],
    )
    def test_other_database_is_rejected_without_its_password(self, location):
        assert "secret" not in refusal(location)

    def test_full_database_keeps_its_content(self, store):
        store.add(chat(10))

        @event.listens_for(store._engine, "checkout")
        def shrink(connection: Any, *_: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # as many as there are already

        with pytest.raises(StoreUnavailable, match="full"):
            store.add(chat(5000, 100))
        event.remove(store._engine, "checkout", shrink)
        assert store.count() == 10
        assert {message.id for message in chat(10)} == set(store.sample(100))

    def test_full_disk_keeps_the_stores_content(self, store, location):
        store.add(chat(10))
        score_all(store, lambda text: 0.5)
        with largest_file(200_000), pytest.raises(StoreUnavailable, match="store.db"):
            store.add(chat(5000, 100))
        assert store.count() == 10
        assert len(store.feed(MODEL, 100).items) == 10
        assert store.add(chat(5000, 100)).added == 5000
        assert query(location, "PRAGMA integrity_check") == [("ok",)]

    def test_failed_import_of_a_dump_is_repeated_completely(self, tmp_path):
        path = make_dump(tmp_path / "chat.db", 0)
        query(
            path,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO raw_rent_messages SELECT i, 'text ' || i FROM n",
        )
        with largest_file(path.stat().st_size + 200_000):
            assert str(path) in refusal(path)
        assert MessageStore.open(path).count() == 3000

    def test_missing_table_is_reported(self, store, location):
        query(location, "DROP TABLE scores")
        with pytest.raises(StoreUnavailable, match="no such table: scores"):
            store.feed(MODEL, 5)
