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
            Message("1", "To let", "flats", NOON, "telegram:group:5"),
            Message("2", "Wanted", "flats", NOON, "telegram:group:5"),
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
        assert read(export(tmp_path, chat(5, "flats", bare))) == [
            Message("1", "To let", "flats", None, "telegram:group:5")
        ]

    def test_unix_time_precedes_local_time(self, tmp_path):
        written = entry(1, "a", date="2024-05-01T15:00:00", date_unixtime="1714564800")
        assert read(export(tmp_path, chat(5, "flats", written)))[0].time == NOON

    def test_entries_without_text_are_counted_by_reason(self, tmp_path):
        entries = [
            {"id": 1, "type": "service", "action": "pin_message"},
            entry(2, "", photo="photos/1.jpg"),
            {"id": 3, "type": "message", "text": None},
            entry(4, []),
            {"id": 5, "type": "unsupported"},
            {"id": 6, "type": "hologram", "text": "a"},
            {"type": "message", "text": "a"},
            "no entry",
            entry(7, "read"),
        ]
        messages = read_messages(export(tmp_path, chat(5, "flats", *entries)))
        assert [message.id for message in messages] == ["7"]
        assert messages.report.skipped == {
            "service messages": 1,
            "without text": 3,
            "unsupported messages": 1,
            "entries of unknown types": 1,
            "without an identifier": 1,
            "entries that are no messages": 1,
        }

    @pytest.mark.parametrize(
        ("kind", "key", "link"),
        [
            ("public_supergroup", "telegram:channel:5", "https://t.me/c/5/1"),
            ("private_supergroup", "telegram:channel:5", "https://t.me/c/5/1"),
            ("public_channel", "telegram:channel:5", "https://t.me/c/5/1"),
            ("private_channel", "telegram:channel:5", "https://t.me/c/5/1"),
            ("private_group", "telegram:group:5", None),
            ("personal_chat", "telegram:user:5", None),
            ("saved_messages", "telegram:user:5", None),
            ("bot_chat", "telegram:user:5", None),
            ([], "telegram:user:5", None),
        ],
    )
    def test_type_of_the_chat_decides_key_and_link(self, tmp_path, kind, key, link):
        content = chat(5, "flats", entry(1, "a")) | {"type": kind}
        [message] = read(export(tmp_path, content))
        assert (message.source, message.link) == (key, link)

    def test_sender_reply_and_time_of_edit_are_read(self, tmp_path):
        written = entry(
            *(7, "a"),
            **{"from": "Вера", "from_id": "user1", "reply_to_message_id": 3},
            edited="2024-05-01T15:00:00",
            edited_unixtime="1714564800",
        )
        deleted = entry(8, "a", **{"from": None}, edited="1970-01-01T03:00:00")
        elsewhere = entry(9, "a", reply_to_message_id=3, reply_to_peer_id="channel6")
        old, gone, quoting = read(export(tmp_path, chat(5, "x", written, deleted, elsewhere)))
        assert (old.sender, old.reply_to, old.edited) == ("Вера", "3", NOON)
        assert (gone.sender, gone.reply_to, gone.edited) == (None, None, None)
        assert quoting.reply_to is None

    def test_messages_from_before_a_migration_have_no_link(self, tmp_path):
        content = chat(5, "x", entry(-999_999_990, "a")) | {"type": "private_supergroup"}
        [message] = read(export(tmp_path, content))
        assert (message.id, message.link) == ("-999999990", None)

    @pytest.mark.parametrize(
        ("parts", "text"),
        [
            ([{"type": "link"}, "Сдам"], "Сдам"),
            ([None, "Сдам", 5, True, {"text": None}, {"text": 7}], "Сдам57"),
            ({"type": "bold", "text": "Сдам"}, "Сдам"),
            (900, "900"),
            ([["Сдам ", {"text": "дом"}]], "Сдам дом"),
        ],
    )
    def test_parts_of_other_types_do_no_harm(self, tmp_path, parts, text):
        assert pairs(export(tmp_path, chat(5, "x", entry(1, parts)))) == [("1", text)]

    @pytest.mark.parametrize(
        ("words", "address", "text"),
        [
            ("Самовар", "https://example.org/7", "Самовар (https://example.org/7)!"),
            ("Самовар ", "https://example.org/7", "Самовар (https://example.org/7) !"),
            ("example.org/7", "https://www.example.org/7/", "example.org/7!"),
            ("Самовар", None, "Самовар!"),
            ("", "https://example.org/7", "https://example.org/7!"),
        ],
    )
    def test_address_of_a_link_follows_its_words(self, tmp_path, words, address, text):
        part = {"type": "text_link", "text": words, "href": address}
        assert pairs(export(tmp_path, chat(5, "x", entry(1, [part, "!"])))) == [("1", text)]

    @pytest.mark.parametrize(
        "question", ["Чай или кофе?", [{"type": "plain", "text": "Чай или "}, "кофе?"]]
    )
    def test_poll_is_read_as_question_and_answers(self, tmp_path, question):
        poll = {"question": question, "answers": [{"text": "чай"}, {"text": "кофе"}]}
        entries = [entry(1, "", poll=poll), entry(2, "Важно", poll=poll), entry(3, "a", poll=None)]
        assert pairs(export(tmp_path, chat(5, "x", *entries))) == [
            ("1", "Чай или кофе?\n- чай\n- кофе"),
            ("2", "Важно\nЧай или кофе?\n- чай\n- кофе"),
            ("3", "a"),
        ]

    def test_buttons_and_names_of_documents_stand_for_a_missing_text(self, tmp_path):
        button = {"type": "url", "text": "Смотреть", "data": "https://example.org/x"}
        rows = [[button, {"type": "callback", "text": "Нет", "data": "no"}], "no row"]
        entries = [
            entry(1, "", inline_bot_buttons=rows),
            entry(2, "", file_name="Расписание поездов.pdf"),
            entry(3, "", file_name="a.webp", media_type="sticker"),
            entry(4, "текст", file_name="a.pdf", inline_bot_buttons=rows),
        ]
        messages = read_messages(export(tmp_path, chat(5, "x", *entries)))
        assert [(message.id, message.text) for message in messages] == [
            ("1", "Смотреть (https://example.org/x)"),
            ("2", "Расписание поездов.pdf"),
            ("4", "текст"),
        ]
        assert messages.report.lines() == [
            "messages without a text have the words and addresses of their buttons",
            "documents without a text have their file names as texts",
        ]

    @pytest.mark.parametrize("date", ["hidden", "", None, [], "0001-01-01T00:00:00+05:00", 1e300])
    def test_unknown_time_is_counted_and_its_message_read(self, tmp_path, date):
        written = entry(1, "a", date=date, date_unixtime="скрыто")
        messages = read_messages(export(tmp_path, chat(5, "x", written)))
        assert [message.time for message in messages] == [None]
        assert messages.report.unknown_times == bool(date or date == [])

    @pytest.mark.parametrize("unix", [1714564800, "1714564800", "1714564800.0", 1714564800000])
    def test_unix_time_of_any_form_is_read(self, tmp_path, unix):
        written = entry(1, "a", date="hidden", date_unixtime=unix)
        assert read(export(tmp_path, chat(5, "x", written)))[0].time == NOON

    def test_string_identifiers_of_converters_are_read(self, tmp_path):
        content = chat(5, "x", entry("3EB0A9", "a"), entry(2.0, "b"), entry(2.5, "c"))
        assert pairs(export(tmp_path, content)) == [("3EB0A9", "a"), ("2", "b"), ("2.5", "c")]

    def test_entries_without_a_type_are_messages(self, tmp_path):
        bare = [{"id": 1, "text": "a"}, {"id": 2, "content": "b", "author": "x"}]
        assert pairs(export(tmp_path, {"id": 5, "messages": bare})) == [("1", "a"), ("2", "b")]

    @pytest.mark.parametrize(
        ("entries", "found"),
        [
            ([{"_": "Message", "id": 1, "message": "a"}], Message("1", "a", "x", None, "name:x")),
            (
                [{"message_id": "u/1", "creator": {"name": "Вера"}, "text": "a"}, {"topic": 5}],
                Message("u/1", "a", "x", None, "name:x"),
            ),
        ],
    )
    def test_messages_of_other_programs_are_read_by_their_fields(self, tmp_path, entries, found):
        path = export(tmp_path, {"name": "x", "messages": entries})
        assert read(path) == [found]

    @pytest.mark.parametrize(
        ("entries", "keys"),
        [
            ([{"type": "m.room.message", "event_id": "$1", "content": {"body": "a"}}],
             "type, event_id, content"),
            ([{"sender_name": "Вера", "timestamp_ms": 1, "content": "a"}],
             "sender_name, timestamp_ms, content"),
        ],
    )  # fmt: skip
    def test_messages_of_an_unknown_kind_are_rejected_with_their_keys(
        self, tmp_path, entries, keys
    ):
        message = complaint(export(tmp_path, {"title": "x", "messages": entries}))
        assert message.endswith(f"the keys of its messages are {keys}")

    def test_exports_in_one_file_are_all_read(self, tmp_path):
        contents = [json.dumps(chat(number, "x", entry(1, "a"))) for number in (5, 6)]
        path = write(tmp_path / "result.json", "\n".join(contents))
        assert [message.source for message in read(path)] == [
            "telegram:group:5",
            "telegram:group:6",
        ]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
    def test_unicode_encodings_are_detected(self, tmp_path, encoding):
        content = json.dumps(chat(5, "квартиры", entry(1, "Сдам")), ensure_ascii=False)
        assert pairs(write(tmp_path / "a.json", content.encode(encoding))) == [("1", "Сдам")]

    def test_chat_without_a_name_has_no_channel(self, tmp_path):
        assert read(export(tmp_path, chat(5, None, entry(1, "a"))))[0].channel is None

    def test_name_after_the_messages_is_used(self, tmp_path):
        content = {"messages": [entry(1, "a")], "id": 5, "name": "flats"}
        assert read(export(tmp_path, content))[0].channel == "flats"

    def test_type_after_the_messages_decides_key(self, tmp_path):
        content = {"id": 5, "name": "flats", "messages": [entry(1, "a")], "type": "private_channel"}
        assert read(export(tmp_path, content))[0].source == "telegram:channel:5"

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
    def test_each_chat_is_a_source(self, tmp_path):
        content = {
            "about": "an export",
            "personal_information": {"user_id": 1},
            "chats": {
                "about": "chats",
                "list": [
                    chat(5, "flats", entry(1, "a")),
                    chat(6, None, entry(1, "b")),
                    {"type": "saved_messages", "id": 8, "messages": [entry(1, "d")]},
                ],
            },
            "left_chats": {"list": [chat(7, "old", entry(1, "c"))]},
        }
        assert [(m.id, m.text, m.channel, m.source) for m in read(export(tmp_path, content))] == [
            ("1", "a", "flats", "telegram:group:5"),
            ("1", "b", None, "telegram:group:6"),
            ("1", "d", None, "telegram:user:8"),
            ("1", "c", "old", "telegram:group:7"),
        ]

    def test_single_and_full_export_give_the_same_messages(self, tmp_path):
        own = chat(5, "flats", entry(1, "a"), entry(2, "b"))
        single = read(export(tmp_path, own))
        assert single == read(export(tmp_path, {"chats": {"list": [own]}}))

    @pytest.mark.parametrize("early", [{}, {"id": 5}, {"name": "flats"}])
    def test_chat_named_after_its_messages_is_read(self, tmp_path, early):
        late = {**early, "messages": [entry(1, "a")], "name": "flats", "id": 5}
        assert read(export(tmp_path, {"chats": {"list": [late]}})) == [
            Message("1", "a", "flats", NOON, "telegram:user:5")
        ]

    def test_chat_without_an_id_is_known_by_its_name(self, tmp_path):
        assert read(export(tmp_path, {"name": "flats", "messages": [entry(1, "a")]})) == [
            Message("1", "a", "flats", NOON, "name:flats")
        ]

    def test_empty_list_of_chats_has_no_messages(self, tmp_path):
        assert read(export(tmp_path, {"chats": {"list": []}})) == []


class TestBadExports:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ('{"messages": {}}', "`{` stands where `[` should"),
            ('{"chats": 5}', "`5` stands where `{` should"),
            ('{"messages": []} 5', "something follows the export"),
            ('{"messages": []} {"a": 1', "it is cut off"),
            ('{"messages" []}', "`[` stands where `:` should"),
            ("{5: []}", "a key is not a string"),
            ('{"messages": [', "it is cut off"),
            ('{"messages": [{"type": "service"}', "it is cut off"),
            ('{"messages": [{"id": 1, "te', "it is cut off"),
            ('{"messages": [{"id": 1 "text": 5}]}', "Expecting ',' delimiter"),
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

    @pytest.mark.parametrize(
        ("content", "seen"),
        [
            ("{}", "no keys"),
            ('{"id": 5, "name": "a"}', "keys id, name"),
            ('{"guild": {}, "chan\\nnel": {}}', "keys guild, chan\\nnel"),
        ],
    )
    def test_object_of_another_kind_is_rejected_with_its_keys(self, tmp_path, content, seen):
        message = complaint(write(tmp_path / "result.json", content))
        assert message.endswith(f"this is an object with {seen}")

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
