import json
import shutil
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.readers import Message, UnreadableFile, read_messages

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path) -> list[Message]:
    return list(read_messages(path))


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(message.id, message.text) for message in read(path)]


def complaint(path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
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
    def test_rent_messages(self, tmp_path):
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

    def test_the_channel_column_may_be_missing(self, tmp_path):
        path = run(
            tmp_path / "chat.db",
            "CREATE TABLE tg_messages (id, msg)",
            "INSERT INTO tg_messages VALUES (1, 'a')",
        )
        assert read(path) == [Message("1", "a")]

    def test_both_tables_and_others_beside_them(self, tmp_path):
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

    def test_values_of_any_type(self, tmp_path):
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
        assert messages.skipped == 4

    def test_the_content_counts_and_not_the_name(self, tmp_path):
        assert read(run(tmp_path / "chat.csv", RENT)) == []

    def test_reading_leaves_no_trace(self, tmp_path):
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

    def test_what_a_crashed_writer_left_half_done_is_undone(self, tmp_path):
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

    def test_a_log_in_a_folder_that_may_not_be_written(self, tmp_path):
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

    def test_a_database_without_messages(self, tmp_path):
        path = run(tmp_path / "other.db", "CREATE TABLE messages (id, text)")
        assert "raw_rent_messages(msg_id, msg) or tg_messages(id, msg, channel)" in complaint(path)
        path = run(tmp_path / "almost.db", "CREATE TABLE raw_rent_messages (msg_id, message)")
        assert "expected a table" in complaint(path)

    def test_a_damaged_database(self, tmp_path):
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
    def test_the_names_of_columns(self, tmp_path, header):
        assert read(write(tmp_path / "a.csv", f"{header}\n1,To let\n")) == [Message("1", "To let")]

    def test_columns_in_any_order_among_others(self, tmp_path):
        path = write(tmp_path / "a.csv", "label,msg,channel,msg_id\n1,To let,flats,007\n")
        assert read(path) == [Message("007", "To let", "flats")]

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
    def test_times(self, tmp_path, written):
        path = write(tmp_path / "a.csv", f"id,text,time\n1,a,{written}\n2,b,\n")
        assert [message.time for message in read(path)] == [NOON, None]

    def test_quotes_line_ends_and_byte_order_mark(self, tmp_path):
        path = write(tmp_path / "a.csv", '\ufeffid,text\r\n1,"two\nlines, ""quoted"""\r\n\r\n2,b')
        assert pairs(path) == [("1", 'two\nlines, "quoted"'), ("2", "b")]

    def test_a_very_long_text(self, tmp_path):
        text = "long " * 100_000
        assert pairs(write(tmp_path / "a.csv", f"id,text\n1,{text}\n")) == [("1", text)]

    def test_null_and_blanks(self, tmp_path):
        messages = read_messages(
            write(tmp_path / "a.csv", "id,text\n1,a\x00b\n2, \n,c\n\x00,d\n 3 , e \n")
        )
        assert [(message.id, message.text) for message in messages] == [("1", "ab"), ("3", " e ")]
        assert messages.skipped == 3

    @pytest.mark.parametrize(
        ("content", "where", "why"),
        [
            ("a,b\n1,2\n", "line 1", "columns msg_id,msg or id,text; the columns are 'a,b'"),
            ("just a line of text", "line 1", "expected an SQLite chat dump"),
            ("[1, 2]", "line 1", "expected an SQLite chat dump"),
            ("id,text\n1,a\n2,b,c\n", "line 3", "expected 2 fields, as in the header, not 3"),
            ("id,text\n1\n", "line 2", "expected 2 fields, as in the header, not 1"),
            ('id,text\n1,"never closed\n', "line 2", "expected CSV"),
            ('id,text\n1,"a"b\n', "line 2", "expected CSV"),
            ("id,text,time\n1,a,soon\n", "line 2", "expected a time in ISO 8601"),
            ("id,text,time\n1,a,99999999999999\n", "line 2", "out of range"),
            ("id,text,time\n1,a," + "9" * 400 + "\n", "line 2", "out of range"),
            ("id,text,time\n1,a,0001-01-01T00:00:00+05:00\n", "line 2", "expected a time"),
            ("id,text\n1,привет\n".encode("cp1251"), "after line", "expected UTF-8 text"),
            ("id,text\n1,a\n".encode("utf-16"), "after line 0", "expected UTF-8 text"),
            (b"\xef\xbb", "line 0", "the columns are ''"),
            (b"\x89PNG\r\n\x1a\n\x00", "after line 0", "expected UTF-8 text"),
        ],
    )
    def test_bad_files(self, tmp_path, content, where, why):
        message = complaint(write(tmp_path / "a.csv", content))
        assert where in message
        assert why in message

    def test_a_value_cannot_forge_a_line_of_the_log(self, tmp_path):
        message = complaint(
            write(tmp_path / "a.csv", f'id,text,time\n1,a,"x\nERROR \x1b[31m{"y" * 9999}"\n')
        )
        assert "\n" not in message and "\x1b" not in message

    def test_what_comes_before_a_bad_line_is_read(self, tmp_path):
        messages = read_messages(write(tmp_path / "a.csv", "id,text\n1,a\n2\n"))
        assert next(messages).id == "1"
        with pytest.raises(UnreadableFile):
            next(messages)


class TestNoMessages:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(UnreadableFile, match="absent.csv: No such file"):
            read_messages(tmp_path / "absent.csv")

    def test_a_folder(self, tmp_path):
        with pytest.raises(UnreadableFile, match="Is a directory"):
            read_messages(tmp_path)

    @pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
    def test_an_empty_file(self, tmp_path, content):
        with pytest.raises(UnreadableFile, match="the file is empty"):
            read_messages(write(tmp_path / "a.csv", content))

    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"id,text\n{text}"))
    @settings(max_examples=150, deadline=None)
    def test_a_file_is_read_or_refused(self, tmp_path_factory, content):
        path = write(tmp_path_factory.getbasetemp() / "any", content)
        try:
            messages = read(path)
        except UnreadableFile:
            return
        assert all(message.id.strip() and message.text.strip() for message in messages)


def entry(number: int, text: Any, **others: Any) -> dict[str, Any]:
    return {"id": number, "type": "message", "date": "2024-05-01T12:00:00", "text": text} | others


def chat(number: int, name: str | None, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": "private_group", "id": number, "messages": list(entries)}


def export(path: Path, content: Any, **options: Any) -> Path:
    return write(path / "result.json", json.dumps(content, **options))


class TestTelegramChat:
    @pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":")}])
    def test_one_chat(self, tmp_path, options):
        path = export(tmp_path, chat(5, "flats", entry(1, "To let"), entry(2, "Wanted")), **options)
        assert read(path) == [
            Message("1", "To let", "flats", NOON),
            Message("2", "Wanted", "flats", NOON),
        ]

    def test_text_in_parts(self, tmp_path):
        parts = ["Call ", {"type": "phone", "text": "+357 00 123456"}, " or ", {"text": "write"}]
        path = export(tmp_path, chat(5, "flats", entry(1, parts)))
        assert pairs(path) == [("1", "Call +357 00 123456 or write")]

    def test_text_in_entities_alone(self, tmp_path):
        bare = {
            "id": 1,
            "type": "message",
            "text_entities": [{"type": "plain", "text": "To "}, {"type": "bold", "text": "let"}],
        }
        assert read(export(tmp_path, chat(5, "flats", bare))) == [Message("1", "To let", "flats")]

    def test_the_moment_counts_and_not_the_clock_on_the_wall(self, tmp_path):
        written = entry(1, "a", date="2024-05-01T15:00:00", date_unixtime="1714564800")
        assert read(export(tmp_path, chat(5, "flats", written)))[0].time == NOON

    def test_service_entries_are_nothing_and_pictures_are_skipped(self, tmp_path):
        entries = [
            {"id": 1, "type": "service", "action": "pin_message"},
            entry(2, "", photo="photos/1.jpg"),
            {"id": 3, "type": "message", "text": None},
            entry(4, []),
            entry(5, "kept"),
        ]
        messages = read_messages(export(tmp_path, chat(5, "flats", *entries)))
        assert [message.id for message in messages] == ["5"]
        assert messages.skipped == 3

    def test_a_chat_without_a_name(self, tmp_path):
        assert read(export(tmp_path, chat(5, None, entry(1, "a"))))[0].channel is None

    def test_messages_before_the_name(self, tmp_path):
        content = {"messages": [entry(1, "a")], "id": 5, "name": "flats"}
        assert read(export(tmp_path, content))[0].channel == "flats"

    def test_surrogates_as_some_exports_write_them(self, tmp_path):
        path = write(
            tmp_path / "result.json",
            '{"name": "flats", "id": 5, "messages": [{"id": 1, "type": "message",'
            r' "text": "\ud83c\udfe0 \ud83c \u0000."}]}',
        )
        assert pairs(path) == [("1", "🏠 \ufffd .")]

    def test_byte_order_mark_and_blanks_before(self, tmp_path):
        content = "\ufeff\n  " + json.dumps(chat(5, "flats", entry(1, "a")))
        assert pairs(write(tmp_path / "result.json", content)) == [("1", "a")]

    def test_an_export_longer_than_what_is_read_at_once(self, tmp_path):
        entries = [entry(number, f"{number} " + "é" * 700) for number in range(500)]
        entries.append(entry(500, "x" * 300_000))
        path = export(tmp_path, chat(5, "flats", *entries), ensure_ascii=False)
        assert [message.id for message in read(path)] == [str(number) for number in range(501)]

    def test_a_number_where_one_chunk_ends(self, tmp_path):
        opening = '{"about": "'
        for place in range(2**16 - 12, 2**16):
            padding = "x" * (place - len(opening) - len('", "n": '))
            content = f'{opening}{padding}", "n": 1.25e+10, "id": 5, "messages": []}}'
            assert content.index("1.25") == place
            assert read(write(tmp_path / "result.json", content)) == []


class TestTelegramChats:
    def test_identifiers_name_their_chat(self, tmp_path):
        content = {
            "about": "an export",
            "personal_information": {"user_id": 1},
            "chats": {
                "about": "chats",
                "list": [chat(5, "flats", entry(1, "a")), chat(6, None, entry(1, "b"))],
            },
            "left_chats": {"list": [chat(7, "old", entry(1, "c"))]},
        }
        assert [(m.id, m.text, m.channel) for m in read(export(tmp_path, content))] == [
            ("5:1", "a", "flats"),
            ("6:1", "b", None),
            ("7:1", "c", "old"),
        ]

    def test_a_chat_that_names_itself_last(self, tmp_path):
        late = {"messages": [entry(1, "a")], "name": "flats", "id": 5}
        assert read(export(tmp_path, {"chats": {"list": [late]}})) == [
            Message("5:1", "a", "flats", NOON)
        ]

    def test_no_chats(self, tmp_path):
        assert read(export(tmp_path, {"chats": {"list": []}})) == []


class TestBadExports:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("{}", "neither is here"),
            ('{"id": 5}', "neither is here"),
            ('{"messages": {}}', "`{` stands where `[` should"),
            ('{"messages": [3]}', ""),
            ('{"messages": ["text"]}', ""),
            ('{"messages": [[]]}', ""),
            ('{"messages": [{"id": 1}]}', "there is no 'type'"),
            ('{"messages": [{"type": "message"}]}', "there is no 'id'"),
            ('{"messages": [{"type": "message", "id": 1, "text": 5}]}', ""),
            ('{"messages": [{"type": "message", "id": 1, "text": [{}]}]}', "there is no 'text'"),
            ('{"messages": [{"type": "message", "id": 1, "date": "soon"}]}', "soon"),
            ('{"messages": [{"type": "message", "id": 1, "date": 5}]}', ""),
            (
                '{"messages": [{"type": "message", "id": 1, "date": "0001-01-01T00:00:00+05:00"}]}',
                "out of range",
            ),
            ('{"messages": [{"type": "message", "id": 1, "date_unixtime": "1e5"}]}', "1e5"),
            ('{"messages": [{"type": "message", "id": 1, "date_unixtime": "9999999999999"}]}', ""),
            ('{"chats": {"list": [{"messages": [{"type": "message", "id": 1}]}]}}', "no 'id'"),
            ('{"chats": []}', "`[` stands where `{` should"),
            ('{"messages": []} {}', "something follows the export"),
            ('{"messages": [],}', ""),
            ('{"messages" []}', "`[` stands where `:` should"),
            ("{5: []}", "a key is not a string"),
            ('{"messages": [', "Expecting value"),
            ('{"messages": [{"type": "service"}', "it ends"),
            ('{"messages": [{"id": 1, "te', ""),
            ('{"about": "' + "x" * 200_000, "Unterminated string"),
            ('{"a": ' + "[" * 200_000, ""),
            ('{"a": ' + "1" * 5000 + "}", ""),
            ("{not json", ""),
        ],
    )
    def test_what_is_wrong_and_where(self, tmp_path, content, why):
        message = complaint(write(tmp_path / "result.json", content))
        assert "at character" in message
        assert "expected Telegram Desktop's result.json" in message
        assert why in message

    def test_not_utf_8(self, tmp_path):
        content = json.dumps(chat(5, "квартиры", entry(1, "a")), ensure_ascii=False)
        path = write(tmp_path / "result.json", content.encode("cp1251"))
        assert "expected UTF-8 text" in complaint(path)

    def test_an_export_cut_anywhere(self, tmp_path):
        content = json.dumps(
            {"chats": {"list": [chat(5, "flats", entry(1, ["a", {"text": "b"}]))]}}
        )
        for end in range(1, len(content)):
            message = complaint(write(tmp_path / "result.json", content[:end]))
            assert "result.json" in message and "expected" in message

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "type", "text", "date", "list", "messages"]), inner
                )
            ),
            max_leaves=10,
        )
    )
    @settings(max_examples=150, deadline=None)
    def test_any_json_is_read_or_refused(self, tmp_path_factory, value):
        path = tmp_path_factory.getbasetemp() / "any.json"
        write(path, json.dumps({"messages": [{"type": "message", "id": 1, "text": value}, value]}))
        with suppress(UnreadableFile):
            read(path)
