"""SQLite databases: chat dumps in every form, other programs' archives, stores of our own."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from test_readers import RENT, complaint, pairs, read, run

from feedsieve.message import Message
from feedsieve.sources.chats import sqlite_dump
from feedsieve.sources.naming import NamedMessages
from feedsieve.sources.readers import read_messages
from feedsieve.store.store import MessageStore

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
UNIX = 1714564800


class TestDumpForms:
    @pytest.mark.parametrize(
        "statements",
        [
            ["CREATE TABLE RAW_RENT_MESSAGES (Msg_Id, MSG)",
             "INSERT INTO raw_rent_messages VALUES (1, 'Чай'), (2, 'Кофе')"],
            ["CREATE TABLE m (i, t)", "INSERT INTO m VALUES (1, 'Чай'), (2, 'Кофе')",
             "CREATE VIEW raw_rent_messages AS SELECT i AS msg_id, t AS msg FROM m"],
            ["CREATE TABLE Tg_Messages (id INTEGER PRIMARY KEY, msg) WITHOUT ROWID",
             "INSERT INTO tg_messages VALUES (1, 'Чай'), (2, 'Кофе')"],
            ["CREATE VIRTUAL TABLE tg_messages USING fts5 (id, msg, channel)",
             "INSERT INTO tg_messages VALUES (1, 'Чай', NULL), (2, 'Кофе', NULL)"],
            ["CREATE TABLE raw_rent_messages (msg_id, msg, rowid)",
             "INSERT INTO raw_rent_messages VALUES (1, 'Чай', 'b'), (2, 'Кофе', 'a')"],
            ["CREATE TABLE raw_rent_messages (msg_id, msg, rowid, _rowid_, oid)",
             "INSERT INTO raw_rent_messages VALUES (1, 'Чай', 3, 3, 3), (2, 'Кофе', 2, 2, 2)"],
            ["PRAGMA encoding = 'UTF-16be'", RENT,
             "INSERT INTO raw_rent_messages VALUES (1, 'Чай'), (2, 'Кофе')"],
        ],
        ids=["case", "view", "without rowid", "fts5", "rowid column", "no row numbers", "utf-16"],
    )  # fmt: skip
    def test_dump_of_any_form_is_read_and_imported_as_a_store(self, tmp_path, statements):
        path = run(tmp_path / "chat.db", *statements)
        assert pairs(path) == [("1", "Чай"), ("2", "Кофе")]
        for _ in range(2):
            store = MessageStore.open(path)
            assert store.count() == 2
            store.close()

    def test_lowest_row_numbers_are_read(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            "CREATE TABLE raw_rent_messages (msg_id INTEGER PRIMARY KEY, msg)",
            f"INSERT INTO raw_rent_messages VALUES ({-(2**63)}, 'Чай'), (-9, 'Кофе'), (0, 'Какао')",
        )
        assert [text for _id, text in pairs(path)] == ["Чай", "Кофе", "Какао"]

    @pytest.mark.parametrize(
        "statements",
        [
            ["CREATE TABLE m (i, t)",
             "CREATE VIEW raw_rent_messages AS SELECT i AS msg_id, t AS msg FROM m"],
            ["CREATE TABLE raw_rent_messages (msg_id PRIMARY KEY, msg) WITHOUT ROWID",
             "CREATE VIEW m AS SELECT 1"],
        ],
        ids=["view", "without rowid"],
    )  # fmt: skip
    def test_new_rows_without_row_numbers_are_imported(self, tmp_path, statements):
        table = "m" if "TABLE m" in statements[0] else "raw_rent_messages"
        path = run(tmp_path / "chat.db", *statements, f"INSERT INTO {table} VALUES (1, 'Чай')")
        for number in range(2, 5):
            run(path, f"INSERT INTO {table} VALUES ({number}, 'Кофе {number}')")
            store = MessageStore.open(path)
            assert store.count() == number
            store.close()

    def test_only_new_rows_are_read_beside_a_column_named_rowid(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            "CREATE TABLE raw_rent_messages (msg_id, msg, rowid)",
            "INSERT INTO raw_rent_messages VALUES (1, 'Чай', 900), (2, 'Кофе', 1)",
        )
        with sqlite_dump.open_read_only(path) as connection:
            [table] = sqlite_dump.raw_tables(connection)
            assert sqlite_dump.last_row(connection, table) == 2
            extent = sqlite_dump.extent(connection, table, 1)
            assert extent.rows == 1
            assert extent != sqlite_dump.extent(connection, table, 2)
            assert [m.id for m in sqlite_dump.rows(connection, table, extent)] == ["2"]


class TestArchives:
    def test_telegram_export_has_a_source_for_each_chat(self, tmp_path):
        path = run(
            tmp_path / "export.db",
            "CREATE TABLE Message (ID INT NOT NULL, ContextID INT NOT NULL, Date INT NOT NULL,"
            " FromID INT, Message TEXT, ReplyMessageID INT, ServiceAction TEXT,"
            " PRIMARY KEY (ID, ContextID)) WITHOUT ROWID",
            "CREATE TABLE Supergroup (ID INT, DateUpdated INT, Title TEXT)",
            "INSERT INTO Supergroup VALUES (-1000000000007, 1, 'Старое'),"
            " (-1000000000007, 2, 'Чай')",
            "INSERT INTO Message VALUES"
            f" (1, -1000000000007, {UNIX}, 5, 'Самовар', 3, NULL), (1, 6, {UNIX}, 6, 'Да', NULL,"
            f" NULL), (2, 6, {UNIX}, 6, '{{}}', NULL, 'pin'), (1, -8, {UNIX}, 6, '', NULL, NULL)",
        )
        messages = read_messages(path)
        assert sorted(messages, key=lambda message: message.source) == [
            Message(
                *("1", "Самовар", "Чай", NOON, "telegram:channel:7", "5"),
                *("https://t.me/c/7/1", "3"),
            ),
            Message("1", "Да", None, NOON, "telegram:user:6", "6"),
        ]
        assert messages.report.skipped == {"service messages": 1, "without text": 1}
        assert messages.report.format == "telegram-export's database"

    def test_tg_archive_is_read_with_its_users(self, tmp_path):
        path = run(
            tmp_path / "data.sqlite",
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, type TEXT, date TIMESTAMP,"
            " edit_date TIMESTAMP, content TEXT, reply_to INTEGER, user_id INTEGER, media_id)",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, username, first_name, last_name)",
            "INSERT INTO users VALUES (5, 'vera', 'Вера', NULL), (6, 'oleg', NULL, NULL)",
            "INSERT INTO messages VALUES"
            " (1, 'message', '2024-05-01 12:00:00', '2024-05-01 12:00:00', 'Самовар', 3, 5, 1),"
            " (2, 'message', '2024-05-01 12:00:00', NULL, 'Да', NULL, 6, NULL),"
            " (3, 'user_joined', '2024-05-01 12:00:00', NULL, NULL, NULL, 7, NULL),"
            " (4, 'message', 'hidden', NULL, 'Нет', NULL, 7, NULL)",
        )
        messages = read_messages(path)
        assert list(messages) == [
            Message("1", "Самовар", time=NOON, sender="Вера", reply_to="3", edited=NOON),
            Message("2", "Да", time=NOON, sender="oleg"),
            Message("4", "Нет", sender="7"),
        ]
        assert messages.report.skipped == {"service messages": 1}
        assert messages.report.unknown_times == 1

    def test_store_of_our_own_is_read(self, tmp_path):
        written = [Message("1", "Самовар", "Чай", NOON), Message("2", "Да")]
        store = MessageStore.open(tmp_path / "own.db")
        store.add(written)
        store.close()
        messages = read_messages(tmp_path / "own.db")
        found = [(m.id, m.text, m.channel, m.time) for m in messages]
        assert sorted(found) == [("1", "Самовар", "Чай", NOON), ("2", "Да", None, None)]
        assert messages.report.format == "a message store of feedsieve"

    def test_store_with_sources_is_read_with_them(self, tmp_path):
        path = run(
            tmp_path / "own.db",
            "CREATE TABLE sources (number INTEGER PRIMARY KEY, key, title)",
            "CREATE TABLE scores (model, fingerprint, score)",
            "CREATE TABLE messages (id PRIMARY KEY, source, source_id, text, time, sender, link,"
            " reply_to, edited, fingerprint, seen_at)",
            "INSERT INTO sources VALUES (1, 'telegram:channel:7', 'Чай')",
            "INSERT INTO messages VALUES ('7-1', 1, '1', 'Самовар', '2024-05-01 12:00:00.000000',"
            " 'Вера', 'https://t.me/c/7/1', '3', NULL, '', '')",
        )
        assert read(path) == [
            Message(
                *("1", "Самовар", "Чай", NOON, "telegram:channel:7", "Вера"),
                *("https://t.me/c/7/1", "3"),
            )
        ]

    def test_store_in_a_dump_is_read_instead_of_the_dump(self, tmp_path):
        path = run(tmp_path / "chat.db", RENT, "INSERT INTO raw_rent_messages VALUES (1, 'Чай')")
        MessageStore.open(path).close()
        messages = read_messages(path)
        assert [(message.id, message.text) for message in messages] == [("1", "Чай")]
        assert "raw_rent_messages" in messages.report.notes[0]


class TestOtherTables:
    def test_columns_are_found_by_their_names(self, tmp_path):
        path = run(
            tmp_path / "bot.db",
            "CREATE TABLE users (id, username)",
            'CREATE TABLE "Chat Messages" (pk, Message_ID, chat_title, "from", Body, created_at)',
            """INSERT INTO "Chat Messages" VALUES (9, 1, 'Чай', 'Вера', 'Самовар', 1714564800)""",
        )
        messages = read_messages(path)
        assert list(messages) == [Message("1", "Самовар", "Чай", NOON, sender="Вера")]
        assert messages.report.notes == [
            "read from Chat Messages: Message_ID, Body, chat_title, created_at, from"
        ]

    def test_other_tables_are_named_beside_those_of_messages(self, tmp_path):
        path = run(
            tmp_path / "bot.db",
            "CREATE TABLE drafts (id, text)",
            "CREATE TABLE messages (id, text)",
            "INSERT INTO drafts VALUES (1, 'черновик')",
            "INSERT INTO messages VALUES (1, 'Самовар')",
        )
        messages = read_messages(path)
        assert [message.text for message in messages] == ["Самовар"]
        assert "tables not read: drafts" in messages.report.notes

    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            (None, {"file:bot/messages": None, "file:bot/old_messages": None}),
            ("кухня", {"name:кухня/messages": None, "name:кухня/old_messages": None}),
        ],
    )
    def test_each_of_several_tables_is_a_source(self, tmp_path, name, keys):
        path = run(
            tmp_path / "bot.db",
            "CREATE TABLE messages (id, text)",
            "CREATE TABLE old_messages (id, text)",
            "CREATE VIEW all_messages AS SELECT * FROM messages UNION SELECT * FROM old_messages",
            "INSERT INTO messages VALUES (1, 'Самовар')",
            "INSERT INTO old_messages VALUES (1, 'Чайник')",
        )
        named = NamedMessages(read_messages(path), path, name)
        assert {message.text for message in named} == {"Самовар", "Чайник"}
        assert named.sources.keys() == keys.keys()

    def test_chats_in_one_of_several_tables_are_kept_apart(self, tmp_path):
        path = run(
            tmp_path / "bot.db",
            "CREATE TABLE messages (id, text, chat_id)",
            "CREATE TABLE old_messages (id, text)",
            "INSERT INTO messages VALUES (1, 'Самовар', -1001), (1, 'Чайник', -1002)",
        )
        assert len({message.source for message in read_messages(path)}) == 2

    def test_view_is_read_where_no_table_has_messages(self, tmp_path):
        path = run(
            tmp_path / "bot.db",
            "CREATE TABLE m (i, t)",
            "INSERT INTO m VALUES (1, 'Самовар')",
            "CREATE VIEW messages AS SELECT i AS id, t AS text FROM m",
            "CREATE VIEW broken AS SELECT * FROM gone",
        )
        messages = read_messages(path)
        assert [message.text for message in messages] == ["Самовар"]
        assert "broken cannot be read" in messages.report.notes[0]

    def test_full_text_index_is_read_only_without_a_table(self, tmp_path):
        index = "CREATE VIRTUAL TABLE messages_index USING fts5 (id, text)"
        fill = "INSERT INTO messages_index VALUES (1, 'Самовар')"
        assert pairs(run(tmp_path / "alone.db", index, fill)) == [("1", "Самовар")]
        path = run(
            *(tmp_path / "both.db", index, fill, "CREATE TABLE messages (id, text)"),
            "INSERT INTO messages VALUES (1, 'Самовар')",
        )
        messages = read_messages(path)
        assert [(message.id, message.text) for message in messages] == [("1", "Самовар")]
        assert "tables not read: messages_index" in messages.report.notes

    @pytest.mark.parametrize(
        ("statements", "seen"),
        [
            (["CREATE TABLE users (id, name)"], "users(id, name)"),
            (
                ["CREATE TABLE raw_rent_messages (msg_id, words)"],
                "raw_rent_messages(msg_id, words)",
            ),
            (["VACUUM"], "it has no tables"),
        ],
    )
    def test_database_without_messages_is_rejected(self, tmp_path, statements, seen):
        message = complaint(run(tmp_path / "other.db", "PRAGMA user_version = 1", *statements))
        assert "raw_rent_messages(msg_id, msg) or tg_messages(id, msg, channel)" in message
        assert seen in message

    def test_locked_database_is_rejected_with_the_way_out(self, tmp_path, monkeypatch):
        path = run(tmp_path / "chat.db", RENT)
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0}))
        with closing(connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            assert "close the program that is using it" in complaint(path)
