"""Stores of chat dumps: SQLite files with raw messages that the store imports."""

import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from stores import MODEL, chat, content, history, make_dump, query, score_all, write_many

from feedsieve.message import Message
from feedsieve.settings import Settings
from feedsieve.store import database
from feedsieve.store.store import MessageStore


@pytest.fixture
def read_only_dump(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "kept"
    folder.mkdir()
    path = make_dump(folder / "chat.db")
    path.chmod(0o444)
    folder.chmod(0o555)
    yield path
    folder.chmod(0o755)


class TestDump:
    def test_messages_of_a_dump_are_imported(self, tmp_path):
        store = MessageStore.open(make_dump(tmp_path / "chat.db"))
        assert store.count() == 3
        assert store.get("1") == Message("1", "text 1")

    def test_raw_table_is_unchanged(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        before = query(path, "SELECT rowid, * FROM raw_rent_messages")
        MessageStore.open(path).add([Message("1", "another")])
        assert query(path, "SELECT rowid, * FROM raw_rent_messages") == before

    def test_second_opening_changes_nothing(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        before = content(path)
        counts = []
        MessageStore.open(path, progress=counts.append).close()
        assert content(path) == before
        assert counts == []

    def test_new_rows_are_imported_at_the_next_opening(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        query(path, "INSERT INTO raw_rent_messages VALUES (10, 'new'), (11, '')")
        counts = []
        store = MessageStore.open(path, progress=counts.append)
        assert store.get("10").text == "new"
        assert store.count() == 4
        assert counts == [1]

    def test_changed_text_and_inserted_row_are_imported(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        query(path, "INSERT INTO raw_rent_messages VALUES (10, 'last')")
        MessageStore.open(path).close()
        query(path, "UPDATE raw_rent_messages SET msg = 'longer than before' WHERE msg_id = 1")
        query(path, "INSERT INTO raw_rent_messages VALUES (5, 'between')")
        store = MessageStore.open(path)
        assert store.get("1").text == "longer than before"
        assert store.get("5").text == "between"
        assert history(path) == [("1", "text 1")]

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE tg_messages SET msg = 'flat 1900 euro' WHERE id = 1",
            "UPDATE tg_messages SET msg = CASE id WHEN 1 THEN 'flat 1300 euro' ELSE"
            " 'flat 1200 euro' END",
            "UPDATE tg_messages SET channel = 'kids' WHERE id = 1",
        ],
        ids=["text", "two texts exchanged", "channel"],
    )
    def test_edit_of_equal_length_is_imported(self, tmp_path, edit):
        path = tmp_path / "chat.db"
        query(path, "CREATE TABLE tg_messages (id INTEGER PRIMARY KEY, msg, channel)")
        for number in (1, 2):
            values = number, f"flat 1{number + 1}00 euro"
            query(path, "INSERT INTO tg_messages VALUES (?, ?, 'cars')", *values)
        MessageStore.open(path).close()
        query(path, edit)
        store = MessageStore.open(path)
        read = {(m.id.split(":")[-1], m.text, m.channel) for m in store.read_all()}
        assert {*query(path, "SELECT CAST(id AS TEXT), msg, channel FROM tg_messages")} <= read

    def test_extent_of_an_earlier_version_makes_the_dump_read_once_more(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        before = content(path)
        query(path, "UPDATE dump_extents SET characters = 18")  # the length of the texts
        counts = []
        for _ in range(2):
            MessageStore.open(path, progress=counts.append).close()
        assert counts == [3]
        assert content(path) == before

    def test_rows_deleted_from_the_dump_stay_in_the_store(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        query(path, "DELETE FROM raw_rent_messages WHERE msg_id < 2")
        assert MessageStore.open(path).count() == 3

    def test_same_identifiers_in_both_tables_are_merged_or_qualified(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        query(path, "CREATE TABLE tg_messages (id, msg, channel, msg_hash)")
        query(path, "INSERT INTO tg_messages VALUES (1, 'text 1', 'flats', '')")
        query(path, "INSERT INTO tg_messages VALUES (2, 'b', 'cars', '')")
        store = MessageStore.open(path)
        assert store.get("1") == Message("1", "text 1", "flats")
        assert store.get("2").text == "text 2"
        assert store.get("cars:2").text == "b"

    def test_read_only_dump_is_unchanged(self, read_only_dump, tmp_path, caplog):
        before = read_only_dump.read_bytes()
        store = MessageStore.open(read_only_dump, state_folder=tmp_path / "state")
        assert store.count() == 3
        store.add(chat(1))
        assert read_only_dump.read_bytes() == before
        assert list(read_only_dump.parent.iterdir()) == [read_only_dump]
        assert "may not be written" in caplog.text
        assert str(tmp_path / "state") in caplog.text

    def test_store_of_a_read_only_dump_is_reused(self, read_only_dump, tmp_path):
        for _ in range(2):
            store = MessageStore.open(read_only_dump, state_folder=tmp_path / "state")
            score_all(store, lambda text: 0.5)
            assert len(store.feed(MODEL, 10).items) == 3
            store.close()
        assert len(list((tmp_path / "state").iterdir())) == 1

    def test_state_folder_defaults_to_the_settings(self, read_only_dump, tmp_path, monkeypatch):
        monkeypatch.setattr(database, "settings", lambda: Settings(state=tmp_path / "home"))
        MessageStore.open(read_only_dump)
        assert list((tmp_path / "home").glob("chat-*.db"))

    def test_dumps_of_one_name_have_separate_stores(self, tmp_path):
        paths = [tmp_path / folder / "chat.db" for folder in ("one", "two")]
        for count, path in enumerate(paths, 1):
            path.parent.mkdir()
            make_dump(path, count).chmod(0o444)
        stores = [MessageStore.open(path, state_folder=tmp_path / "state") for path in paths]
        assert [store.count() for store in stores] == [1, 2]

    def test_import_is_logged(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "feedsieve")
        path = make_dump(tmp_path / "chat.db")
        query(path, "INSERT INTO raw_rent_messages VALUES (9, ' ')")
        MessageStore.open(path)
        assert "added=3" in caplog.text and "empty: 1" in caplog.text

    def test_two_processes_create_and_fill_one_store(self, tmp_path):
        path = make_dump(tmp_path / "chat.db", 1)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(write_many, [path] * 2, range(2)))
        store = MessageStore.open(path)
        assert store.count() == 1 + 3 * 200
        score_all(store, lambda text: 0.5)
        items = store.feed(MODEL, 1000).items
        assert len(items) == 600  # the dump's message is a copy
        assert sum(item.copies for item in items) == 601
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
