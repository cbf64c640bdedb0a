"""JSON lists and JSON Lines: Telegram's clients and bots, and plain fields."""

import json
from datetime import UTC, datetime

import pytest
from test_readers import complaint, pairs, read, write

from feedsieve.message import Message
from feedsieve.sources.readers import read_messages

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
UNIX = 1714564800


def lines(path, *rows):
    return write(path / "log.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


class TestTelegramClients:
    def test_telethon_messages_are_read(self, tmp_path):
        path = lines(
            tmp_path,
            {
                "_": "Message",
                "id": 9,
                "peer_id": {"_": "PeerChannel", "channel_id": 7},
                "from_id": {"_": "PeerUser", "user_id": 5},
                "date": "2024-05-01T12:00:00+00:00",
                "edit_date": "2024-05-01T12:00:00+00:00",
                "message": "🏠 Самовар сегодня",
                "entities": [
                    {"_": "MessageEntityTextUrl", "offset": 3, "length": 7, "url": "https://e.org"},
                    {"_": "MessageEntityBold", "offset": 0, "length": 2},
                ],
                "reply_to": {"_": "MessageReplyHeader", "reply_to_msg_id": 3},
            },
            {"_": "MessageService", "id": 10, "action": {"_": "MessageActionPinMessage"}},
            {"_": "MessageEmpty", "id": 11},
            {"_": "Message", "id": 12, "peer_id": {"user_id": 5}, "message": "Привет"},
            {"_": "Message", "id": 13, "peer_id": {"chat_id": 6}, "message": "Пока"},
        )
        messages = read_messages(path)
        assert list(messages) == [
            Message(
                *("9", "🏠 Самовар (https://e.org) сегодня", None, NOON, "telegram:channel:7"),
                *("5", "https://t.me/c/7/9", "3", NOON),
            ),
            Message("12", "Привет", source="telegram:user:5"),
            Message("13", "Пока", source="telegram:group:6"),
        ]
        assert messages.report.skipped == {"service messages": 1, "empty messages": 1}

    def test_gotd_messages_are_read(self, tmp_path):
        path = lines(
            tmp_path,
            {
                "_": "TL_message",
                "ID": 9,
                "Date": UNIX,
                "PeerID": {"_": "TL_peerChannel", "ChannelID": 7},
                "FromID": {"_": "TL_peerUser", "UserID": 5},
                "Message": "Сдам",
                "ReplyTo": {"_": "TL_messageReplyHeader", "ReplyToMsgID": 3},
            },
            {"_": "TL_messageService", "ID": 10},
            {"_": "TL_message", "ID": 11, "Message": "Привет"},
        )
        assert read(path) == [
            Message(
                *("9", "Сдам", None, NOON, "telegram:channel:7"),
                *("5", "https://t.me/c/7/9", "3"),
            ),
            Message("11", "Привет"),
        ]

    UPDATES = (
        {
            "update_id": 1,
            "message": {
                "message_id": 9,
                "chat": {"id": -1000000000007, "type": "supergroup", "title": "Чай"},
                "from": {"id": 5, "first_name": "Вера", "last_name": "К"},
                "date": UNIX,
                "text": "Самовар",
                "entities": [
                    {"type": "text_link", "offset": 0, "length": 7, "url": "https://e.org"}
                ],
                "reply_to_message": {"message_id": 3},
            },
        },
        {
            "update_id": 2,
            "edited_channel_post": {
                "message_id": 4,
                "chat": {"id": -1000000000008, "title": "Кофе", "username": "coffee"},
                "sender_chat": {"id": -1000000000008, "title": "Кофе"},
                "edit_date": UNIX,
                "caption": "Зёрна",
            },
        },
        {"update_id": 3, "my_chat_member": {}},
        {
            "update_id": 4,
            "message": {
                "message_id": 5,
                "chat": {"id": 6, "first_name": "Вера"},
                "poll": {"question": "Чай?", "options": [{"text": "да"}, {"text": "нет"}]},
            },
        },
    )
    READ = (
        Message(
            *("9", "Самовар (https://e.org)", "Чай", NOON, "telegram:channel:7"),
            *("Вера К", "https://t.me/c/7/9", "3"),
        ),
        Message(
            *("4", "Зёрна", "Кофе", None, "telegram:channel:8"),
            *("Кофе", "https://t.me/coffee/4", None, NOON),
        ),
        Message("5", "Чай?\n- да\n- нет", "Вера", None, "telegram:user:6"),
    )

    @pytest.mark.parametrize(
        "content",
        [
            "\n".join(map(json.dumps, UPDATES)),
            json.dumps(UPDATES),
            json.dumps({"ok": True, "result": UPDATES}, indent=2),
        ],
        ids=["lines", "list", "answer"],
    )
    def test_updates_of_a_bot_are_read(self, tmp_path, content):
        messages = read_messages(write(tmp_path / "updates", content))
        assert tuple(messages) == self.READ
        assert messages.report.skipped == {"updates without a message": 1}


class TestPlainRows:
    @pytest.mark.parametrize(
        "row",
        [
            {"id": 1, "text": "Сдам"},
            {"msg_id": "1", "msg": "Сдам"},
            {"ID": 1.0, "Message": "Сдам"},
            {"id": 99, "message_id": 1, "content": "Сдам"},
            {"Message Id": 1, "body": "Сдам", "label": None},
        ],
    )
    def test_fields_are_found_by_their_names(self, tmp_path, row):
        assert read(lines(tmp_path, row, row)) == [Message("1", "Сдам")] * 2
        assert read(lines(tmp_path, row)) == [Message("1", "Сдам")]
        assert read(write(tmp_path / "a", json.dumps([row]))) == [Message("1", "Сдам")]

    def test_all_fields_are_read(self, tmp_path):
        row = {
            **{"id": 1, "text": "Сдам", "channel": {"title": "Чай"}, "author": {"name": "Вера"}},
            **{"timestamp": 1000 * UNIX, "url": "https://e.org", "reply_to": 3, "edited_at": UNIX},
        }
        assert read(lines(tmp_path, row)) == [
            Message("1", "Сдам", "Чай", NOON, "", "Вера", "https://e.org", "3", NOON)
        ]

    @pytest.mark.parametrize(
        ("chat", "source"), [(-1000000000007, "telegram:channel:7"), ("-5", "telegram:group:5"),
                             (5, "name:5"), (None, "")]
    )  # fmt: skip
    def test_identifier_of_the_chat_makes_the_source(self, tmp_path, chat, source):
        [message] = read(lines(tmp_path, {"id": 1, "text": "Сдам", "chat_id": chat}))
        assert message.source == source

    def test_rows_of_another_kind_are_counted(self, tmp_path):
        rows = [{"id": 1, "text": "Сдам"}, 5, "a", {"user": 1}, {"id": 2, "text": None}]
        rows += [{"id": None, "text": "a"}, {"id": 3, "text": "a", "type": "service"}]
        messages = read_messages(write(tmp_path / "a.json", json.dumps(rows)))
        assert [message.id for message in messages] == ["1"]
        assert messages.report.skipped == {
            "entries that are no messages": 2,
            "entries without an identifier and a text": 1,
            "without text": 1,
            "without an identifier": 1,
            "service messages": 1,
        }

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("[1, 2]", "an identifier and a text"),
            ('[{"user": 1, "name": "a"}]', "the keys are user, name"),
            ('{"user": 1}\n{"name": "a"}\n', "the keys are user, name"),
            ('[{"id": 1, "text": "a"}', "it is cut off"),
            ('[{"id": 1, "text": "a"}] 5', "something follows the list"),
            ('[{"id": 1, "text" "a"}]', "Expecting ':' delimiter"),
            ('{"id": 1, "text": "a" "b"}\n', "line 1 is broken"),
            ("[" * 100_000, "expected a JSON list"),
        ],
    )
    def test_other_json_is_rejected_with_what_was_seen(self, tmp_path, content, why):
        assert why in complaint(write(tmp_path / "a.json", content))

    def test_parts_nested_too_deeply_have_no_text(self, tmp_path):
        content = f'[{{"id": 1, "text": {"[" * 900}"a"{"]" * 900}}}, {{"id": 2, "text": "b"}}]'
        assert pairs(write(tmp_path / "a.json", content)) == [("2", "b")]

    def test_empty_list_has_no_messages(self, tmp_path):
        assert read(write(tmp_path / "a.json", "[]")) == []


class TestBrokenLines:
    ROWS = '{"id": 1, "text": "Чай"}\n{"id": 2, "text": "Кофе"}\n'

    @pytest.mark.parametrize(
        "tail", ['{"id": 3, "te', '{"id": 3, "text": "Ча'.encode()[:-1], "\0\0"]
    )
    def test_lines_before_a_broken_last_one_are_read(self, tmp_path, tail):
        content = self.ROWS.encode() + (tail if isinstance(tail, bytes) else tail.encode())
        messages = read_messages(write(tmp_path / "a.jsonl", content))
        assert [(message.id, message.text) for message in messages] == [("1", "Чай"), ("2", "Кофе")]
        assert messages.report.skipped == {"broken lines": 1}
        assert "the last line, 3, is cut off" in messages.report.notes[0]

    def test_broken_lines_between_are_counted_and_named(self, tmp_path):
        content = self.ROWS + '{"id": 3, "te\n\n{"id": 4, "text": "Какао"}\r\n'
        messages = read_messages(write(tmp_path / "a.jsonl", content))
        assert [message.id for message in messages] == ["1", "2", "4"]
        assert messages.report.skipped == {"broken lines": 1}
        assert messages.report.notes == ["line 3 is broken"]

    def test_line_of_another_encoding_is_not_read_as_another_text(self, tmp_path):
        content = self.ROWS.encode() + '{"id": 3, "text": "Какао"}\n'.encode("cp1251") + b"{}"
        messages = read_messages(write(tmp_path / "a.jsonl", content))
        assert [message.id for message in messages] == ["1", "2"]
        assert messages.report.skipped["broken lines"] == 1

    def test_faults_of_telegram_desktop_are_mended(self, tmp_path):
        content = self.ROWS + '{"id": 3, "text": "Какао", "document_id": a b.webm,}\n'
        messages = read_messages(write(tmp_path / "a.jsonl", content))
        assert [message.id for message in messages] == ["1", "2", "3"]
        assert messages.report.lines() == ["mended: values without quotes (1), trailing commas (1)"]

    def test_line_longer_than_the_recognised_start_is_read(self, tmp_path):
        rows = [{"id": number, "text": "ы" * 50_000} for number in (1, 2)]
        content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        assert [id for id, _text in pairs(write(tmp_path / "a.jsonl", content))] == ["1", "2"]
