import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import complaint, pairs, read, write

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.readers import read_messages

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def entry(number: int, text: Any, **others: Any) -> dict[str, Any]:
    return {"id": number, "type": "message", "date": "2024-05-01T12:00:00", "text": text} | others


def chat(number: int, name: str | None, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": "private_group", "id": number, "messages": list(entries)}


def export(path: Path, content: Any, **options: Any) -> Path:
    return write(path / "result.json", json.dumps(content, **options))


class TestTelegramChat:
    @pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":")}])
    def test_one_chat_is_read(self, tmp_path, options):
        path = export(tmp_path, chat(5, "flats", entry(1, "To let"), entry(2, "Wanted")), **options)
        assert read(path) == [
            Message("1", "To let", "flats", NOON),
            Message("2", "Wanted", "flats", NOON),
        ]

    def test_parts_of_a_text_are_joined(self, tmp_path):
        parts = ["Call ", {"type": "phone", "text": "+357 00 123456"}, " or ", {"text": "write"}]
        path = export(tmp_path, chat(5, "flats", entry(1, parts)))
        assert pairs(path) == [("1", "Call +357 00 123456 or write")]

    def test_text_is_read_from_entities(self, tmp_path):
        bare = {
            "id": 1,
            "type": "message",
            "text_entities": [{"type": "plain", "text": "To "}, {"type": "bold", "text": "let"}],
        }
        assert read(export(tmp_path, chat(5, "flats", bare))) == [Message("1", "To let", "flats")]

    def test_unix_time_precedes_local_time(self, tmp_path):
        written = entry(1, "a", date="2024-05-01T15:00:00", date_unixtime="1714564800")
        assert read(export(tmp_path, chat(5, "flats", written)))[0].time == NOON

    def test_service_entries_are_ignored_and_pictures_skipped(self, tmp_path):
        entries = [
            {"id": 1, "type": "service", "action": "pin_message"},
            entry(2, "", photo="photos/1.jpg"),
            {"id": 3, "type": "message", "text": None},
            entry(4, []),
            entry(5, "kept"),
        ]
        messages = read_messages(export(tmp_path, chat(5, "flats", *entries)))
        assert [message.id for message in messages] == ["5"]
        assert messages.report.skipped.total() == 3

    def test_chat_without_a_name_has_no_channel(self, tmp_path):
        assert read(export(tmp_path, chat(5, None, entry(1, "a"))))[0].channel is None

    def test_name_after_the_messages_is_used(self, tmp_path):
        content = {"messages": [entry(1, "a")], "id": 5, "name": "flats"}
        assert read(export(tmp_path, content))[0].channel == "flats"

    def test_escaped_surrogates_are_joined_or_replaced(self, tmp_path):
        path = write(
            tmp_path / "result.json",
            '{"name": "flats", "id": 5, "messages": [{"id": 1, "type": "message",'
            r' "text": "\ud83c\udfe0 \ud83c \u0000."}]}',
        )
        assert pairs(path) == [("1", "🏠 \ufffd .")]

    def test_byte_order_mark_and_leading_space_are_skipped(self, tmp_path):
        content = "\ufeff\n  " + json.dumps(chat(5, "flats", entry(1, "a")))
        assert pairs(write(tmp_path / "result.json", content)) == [("1", "a")]

    def test_export_longer_than_a_chunk_is_read(self, tmp_path):
        entries = [entry(number, f"{number} " + "é" * 700) for number in range(500)]
        entries.append(entry(500, "x" * 300_000))
        path = export(tmp_path, chat(5, "flats", *entries), ensure_ascii=False)
        assert [message.id for message in read(path)] == [str(number) for number in range(501)]

    def test_number_across_chunks_is_read(self, tmp_path):
        opening = '{"about": "'
        for place in range(2**16 - 12, 2**16):
            padding = "x" * (place - len(opening) - len('", "n": '))
            content = f'{opening}{padding}", "n": 1.25e+10, "id": 5, "messages": []}}'
            assert content.index("1.25") == place
            assert read(write(tmp_path / "result.json", content)) == []


class TestTelegramChats:
    def test_identifiers_include_their_chat(self, tmp_path):
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

    def test_chat_named_after_its_messages_is_read(self, tmp_path):
        late = {"messages": [entry(1, "a")], "name": "flats", "id": 5}
        assert read(export(tmp_path, {"chats": {"list": [late]}})) == [
            Message("5:1", "a", "flats", NOON)
        ]

    def test_empty_list_of_chats_has_no_messages(self, tmp_path):
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
    def test_bad_export_is_rejected_with_reason_and_position(self, tmp_path, content, why):
        message = complaint(write(tmp_path / "result.json", content))
        assert "at character" in message
        assert "expected Telegram Desktop's result.json" in message
        assert why in message

    def test_other_encoding_is_rejected(self, tmp_path):
        content = json.dumps(chat(5, "квартиры", entry(1, "a")), ensure_ascii=False)
        path = write(tmp_path / "result.json", content.encode("cp1251"))
        assert "expected UTF-8 text" in complaint(path)

    def test_truncated_export_is_rejected(self, tmp_path):
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
    def test_any_json_is_read_or_rejected(self, tmp_path_factory, value):
        path = tmp_path_factory.getbasetemp() / "any.json"
        write(path, json.dumps({"messages": [{"type": "message", "id": 1, "text": value}, value]}))
        with suppress(InvalidFile):
            read(path)
