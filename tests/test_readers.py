import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.readers import read_messages

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path) -> list[Message]:
    return list(read_messages(path))


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(message.id, message.text) for message in read(path)]


def complaint(path: Path) -> str:
    with pytest.raises(InvalidFile) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < len(str(path)) + 500
    return message


def run(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


RENT = "CREATE TABLE raw_rent_messages (msg_id, msg)"
TELEGRAM = "CREATE TABLE tg_messages (id, msg, channel, msg_hash)"


class TestDump:
    def test_rent_messages_are_read(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            "INSERT INTO raw_rent_messages VALUES (7, 'To let'), ('b', 'call +357 00 123456')",
        )
        assert read(path) == [Message("7", "To let"), Message("b", "call +357 00 123456")]

    def test_telegram_messages_have_a_channel(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            TELEGRAM,
            "INSERT INTO tg_messages VALUES (1, 'a', 'flats', 'f00'), (2, 'b', NULL, NULL)",
        )
        assert read(path) == [Message("1", "a", "flats"), Message("2", "b")]

    def test_channel_column_is_optional(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            "CREATE TABLE tg_messages (id, msg)",
            "INSERT INTO tg_messages VALUES (1, 'a')",
        )
        assert read(path) == [Message("1", "a")]

    def test_both_tables_are_read_and_others_ignored(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            TELEGRAM,
            "CREATE TABLE users (id, msg)",
            "INSERT INTO users VALUES (1, 'not a message')",
            "INSERT INTO tg_messages VALUES (2, 'b', 'c', '')",
            "INSERT INTO raw_rent_messages VALUES (1, 'a')",
        )
        assert pairs(path) == [("1", "a"), ("2", "b")]

    def test_values_of_any_type_become_strings(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            "INSERT INTO raw_rent_messages VALUES (1.5, 12), (x'6964', x'74657874ff')",
            "INSERT INTO raw_rent_messages VALUES (3, CAST(x'61ff62' AS TEXT))",
        )
        assert pairs(path) == [("1.5", "12"), ("id", "text\ufffd"), ("3", "a\ufffdb")]

    def test_rows_without_identifier_or_text_are_counted(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            "INSERT INTO raw_rent_messages"
            " VALUES (1, NULL), (NULL, 'a'), (' ', 'a'), (2, ' \n'), (3, 'kept')",
        )
        messages = read_messages(path)
        assert [message.id for message in messages] == ["3"]
        assert messages.report.skipped.total() == 4

    def test_content_decides_the_format(self, tmp_path):
        assert read(run(tmp_path / "chat.csv", RENT)) == []

    def test_reading_changes_nothing(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            "PRAGMA journal_mode = WAL",
            RENT,
            "INSERT INTO raw_rent_messages VALUES (1, 'a')",
        )
        before = path.read_bytes()
        assert pairs(path) == [("1", "a")]
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == before

    def test_unfinished_work_of_a_crashed_writer_is_undone(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
            " INSERT INTO raw_rent_messages SELECT i, printf('%0500d', 0) FROM n",
        )
        (tmp_path / "crashed").mkdir()
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("PRAGMA cache_size = 1")  # the change reaches the file at once
            writer.execute("BEGIN")
            writer.execute("UPDATE raw_rent_messages SET msg = 'half done'")
            for file in (path, tmp_path / "chat.db-journal"):
                shutil.copy(file, tmp_path / "crashed")
        copy = tmp_path / "crashed" / "chat.db"
        assert b"half done" in copy.read_bytes()
        assert {text for _, text in pairs(copy)} == {"0" * 500}

    def test_log_in_a_read_only_folder_is_read(self, tmp_path):
        folder = tmp_path / "kept"
        folder.mkdir()
        path = run(tmp_path / "chat.db", "PRAGMA journal_mode = WAL", RENT)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("INSERT INTO raw_rent_messages VALUES (1, 'still in the log')")
            writer.commit()
            for file in (path, tmp_path / "chat.db-wal"):
                shutil.copy(file, folder)
        files = sorted(folder.iterdir())
        before = [file.read_bytes() for file in files]
        folder.chmod(0o555)
        try:
            assert pairs(folder / "chat.db") == [("1", "still in the log")]
            assert sorted(folder.iterdir()) == files
            assert [file.read_bytes() for file in files] == before
        finally:
            folder.chmod(0o755)

    def test_database_without_messages_is_rejected(self, tmp_path):
        path = run(tmp_path / "other.db", "CREATE TABLE messages (id, text)")
        assert "raw_rent_messages(msg_id, msg) or tg_messages(id, msg, channel)" in complaint(path)
        path = run(tmp_path / "almost.db", "CREATE TABLE raw_rent_messages (msg_id, message)")
        assert "expected a table" in complaint(path)

    def test_damaged_database_is_rejected(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            RENT,
            *["INSERT INTO raw_rent_messages VALUES (1, printf('%05000d', 0))"] * 9,
        )
        content = path.read_bytes()
        assert "expected an SQLite database" in complaint(write(path, content[:5000]))
        assert "malformed" in complaint(write(path, content[:4096] + b"\xff" * 40_000))
        assert "not a database" in complaint(write(path, content[:16] + b"\xff" * 9000))


class TestCSV:
    @pytest.mark.parametrize("header", ["msg_id,msg", "id,text", "id,msg", " msg_id , msg "])
    def test_column_names_are_recognised(self, tmp_path, header):
        assert read(write(tmp_path / "a.csv", f"{header}\n1,To let\n")) == [Message("1", "To let")]

    def test_columns_may_have_any_order(self, tmp_path):
        path = write(tmp_path / "a.csv", "label,msg,channel,msg_id\n1,To let,flats,007\n")
        assert read(path) == [Message("007", "To let", "flats", source="name:flats")]

    @pytest.mark.parametrize(
        "written",
        [
            "2024-05-01T12:00:00",
            "2024-05-01 12:00:00+00:00",
            "2024-05-01T15:00:00+03:00",
            "2024-05-01T12:00:00Z",
            "1714564800",
            " 1714564800.0 ",
        ],
    )
    def test_times_are_read_as_utc(self, tmp_path, written):
        path = write(tmp_path / "a.csv", f"id,text,time\n1,a,{written}\n2,b,\n")
        assert [message.time for message in read(path)] == [NOON, None]

    def test_quotes_line_ends_and_byte_order_mark_are_read(self, tmp_path):
        path = write(tmp_path / "a.csv", '\ufeffid,text\r\n1,"two\nlines, ""quoted"""\r\n\r\n2,b')
        assert pairs(path) == [("1", 'two\nlines, "quoted"'), ("2", "b")]

    def test_very_long_text_is_read(self, tmp_path):
        text = "long " * 100_000
        assert pairs(write(tmp_path / "a.csv", f"id,text\n1,{text}\n")) == [("1", text)]

    def test_nul_is_removed_and_blanks_are_skipped(self, tmp_path):
        messages = read_messages(
            write(tmp_path / "a.csv", "id,text\n1,a\x00b\n2, \n,c\n\x00,d\n 3 , e \n")
        )
        assert [(message.id, message.text) for message in messages] == [("1", "ab"), ("3", " e ")]
        assert messages.report.skipped.total() == 3

    @pytest.mark.parametrize(
        ("content", "where", "why"),
        [
            ("a,b\n1,2\n", "line 1", "columns msg_id,msg or id,text; the columns are 'a,b'"),
            ("just a line of text", "line 1", "expected an SQLite chat dump"),
            ("[1, 2]", "line 1", "expected an SQLite chat dump"),
            ("id,text\n1,a\n2,b,c\n", "line 3", "expected 2 fields, as in the header, not 3"),
            ("id,text\n1\n", "line 2", "expected 2 fields, as in the header, not 1"),
            ('id,text\n1,"never closed\n', "line 2", "expected CSV"),
            ("id,text,time\n1,a,soon\n", "line 2", "expected a time in ISO 8601"),
            ("id,text,time\n1,a,99999999999999\n", "line 2", "out of range"),
            ("id,text,time\n1,a," + "9" * 400 + "\n", "line 2", "out of range"),
            ("id,text,time\n1,a,0001-01-01T00:00:00+05:00\n", "line 2", "expected a time"),
            ("id,text\n1,привет\n".encode("koi8-r"), "line 2", "iconv -f koi8-r -t utf-8"),
            (b"\xef\xbb", "line 1", "expected UTF-8 text"),
            (b"\x89PNG\r\n\x1a\n\x00", "line 1", "expected UTF-8 text"),
        ],
    )
    def test_bad_file_is_rejected_with_its_line(self, tmp_path, content, where, why):
        message = complaint(write(tmp_path / "a.csv", content))
        assert where in message
        assert why in message

    def test_error_is_one_line(self, tmp_path):
        message = complaint(
            write(tmp_path / "a.csv", f'id,text,time\n1,a,"x\nERROR \x1b[31m{"y" * 9999}"\n')
        )
        assert "\n" not in message and "\x1b" not in message

    def test_rows_before_a_bad_line_are_read(self, tmp_path):
        messages = read_messages(write(tmp_path / "a.csv", "id,text\n1,a\n2\n"))
        assert next(messages).id == "1"
        with pytest.raises(InvalidFile):
            next(messages)


class TestNoMessages:
    def test_missing_file_is_rejected(self, tmp_path):
        with pytest.raises(InvalidFile, match="absent.csv: No such file"):
            read_messages(tmp_path / "absent.csv")

    def test_folder_is_rejected(self, tmp_path):
        with pytest.raises(InvalidFile, match="Is a directory"):
            read_messages(tmp_path)

    @pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
    def test_empty_file_is_rejected(self, tmp_path, content):
        with pytest.raises(InvalidFile, match="the file is empty"):
            read_messages(write(tmp_path / "a.csv", content))

    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"id,text\n{text}"))
    @settings(max_examples=150, deadline=None)
    def test_any_file_is_read_or_rejected(self, tmp_path_factory, content):
        path = write(tmp_path_factory.getbasetemp() / "any", content)
        try:
            messages = read(path)
        except InvalidFile:
            return
        assert all(message.id.strip() and message.text.strip() for message in messages)
