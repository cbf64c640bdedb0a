"""Exports of Discord, Slack and WhatsApp, and files that are refused with the way out."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import complaint, read, write

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.readers import read_messages

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def discord(*entries, guild="1", name="Кухня"):
    return {
        "guild": {"id": guild, "name": name, "iconUrl": ""},
        "channel": {"id": "2", "type": "GuildTextChat", "name": "чай"},
        "dateRange": {"after": None},
        "exportedAt": "2024-06-01T00:00:00Z",
        "messages": list(entries),
        "messageCount": len(entries),
    }


def note(number, text, **others):
    author = {"id": "5", "name": "vera", "nickname": "Вера"}
    entry = {"id": str(number), "type": "Default", "timestamp": "2024-05-01T12:00:00+00:00"}
    return entry | {"content": text, "author": author, "embeds": []} | others


class TestDiscord:
    def test_channel_is_read(self, tmp_path):
        entries = [
            note(9, "Самовар", timestampEdited="2024-05-01T15:00:00+03:00"),
            note(10, "Спасибо", type="Reply", reference={"messageId": "9", "channelId": "2"}),
            note(11, "Joined the server.", type="GuildMemberJoin"),
            note(12, "", embeds=[{"title": "Заварка", "description": "Чёрная"}, None]),
            note(13, ""),
            5,
        ]
        path = write(tmp_path / "a.json", json.dumps(discord(*entries), indent=2))
        messages = read_messages(path)
        link = "https://discord.com/channels/1/2/"
        assert list(messages) == [
            Message(
                *("9", "Самовар", "Кухня / чай", NOON, "discord:2", "Вера"),
                *(f"{link}9", None, NOON),
            ),
            Message(
                *("10", "Спасибо", "Кухня / чай", NOON, "discord:2", "Вера", f"{link}10", "9"),
            ),
            Message(
                *("12", "Заварка\nЧёрная", "Кухня / чай", NOON, "discord:2", "Вера", f"{link}12"),
            ),
        ]
        assert messages.report.skipped == {
            "service messages": 1,
            "without text": 1,
            "entries that are no messages": 1,
        }
        assert messages.report.format == "DiscordChatExporter's JSON"

    def test_direct_messages_have_their_own_links(self, tmp_path):
        content = discord(note(9, "Самовар"), guild="0", name="Direct Messages")
        [message] = read(write(tmp_path / "a.json", json.dumps(content)))
        assert message.link == "https://discord.com/channels/@me/2/9"

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ('{"guild": {}, "channel": {}}', "there are no `messages`"),
            ('{"guild": {}, "channel": {}, "messages": [{"id": "1"', "it is cut off"),
        ],
    )
    def test_damaged_export_is_rejected(self, tmp_path, content, why):
        assert why in complaint(write(tmp_path / "a.json", content))


def said(ts, text, **others):
    return {"type": "message", "user": "U1", "text": text, "ts": ts} | others


class TestSlack:
    def day(self, tmp_path, *rows, name="2024-05-01.json"):
        (tmp_path / "чай").mkdir(exist_ok=True)
        return write(tmp_path / "чай" / name, json.dumps(rows))

    def test_day_of_a_channel_is_read(self, tmp_path):
        path = self.day(
            tmp_path,
            said("1714564800.000000", "Самовар <https://e.org|тут> &amp; там", client_msg_id="x"),
            said(
                *("1714564801.000100", "да"),
                thread_ts="1714564800.000000",
                user_profile={"display_name": "", "real_name": "Вера"},
                edited={"user": "U1", "ts": "1714564800.000000"},
            ),
            said("1714564802.000000", "<@U1> has joined", subtype="channel_join"),
            said("1714564803.000000", "", subtype="bot_message", username="бот"),
            {"type": "message"},
        )
        messages = read_messages(path)
        first, second = messages
        assert first == Message(
            *("1714564800.000000", "Самовар тут (https://e.org) & там", "чай", NOON),
            *("slack:чай", "U1"),
        )
        assert (second.id, second.sender, second.reply_to, second.edited) == (
            *("1714564801.000100", "Вера", "1714564800.000000", NOON),
        )
        assert messages.report.skipped == {
            "service messages": 1,
            "without text": 1,
            "entries that are no messages": 1,
        }

    @pytest.mark.parametrize(
        ("written", "text"),
        [
            ("<https://e.org>", "https://e.org"),
            ("<https://e.org/|e.org>", "e.org"),
            ("<@U1> и <@U2|vera>", "@U1 и @vera"),
            ("<#C1|чай> <!here> <!subteam^S1|@повара>", "#чай @here @повара"),
            ("в <!date^1714564800^{date}|мае>", "в мае"),
            ("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2"),
            ("&lt;https://e.org|нет&gt;", "<https://e.org|нет>"),
        ],
    )
    def test_marks_are_made_plain(self, tmp_path, written, text):
        assert [m.text for m in read(self.day(tmp_path, said("1714564800.1", written)))] == [text]

    def test_file_that_is_no_day_has_no_source(self, tmp_path):
        [message] = read(self.day(tmp_path, said("1714564800.1", "a"), name="general.json"))
        assert (message.source, message.channel) == ("", None)

    def test_list_of_users_has_no_messages(self, tmp_path):
        users = [{"id": "U1", "team_id": "T1", "name": "vera", "profile": {}}]
        messages = read_messages(write(tmp_path / "users.json", json.dumps(users)))
        assert list(messages) == []
        assert messages.report.skipped == {"entries that are no messages": 1}


ANDROID = """31/12/2023, 22:15 - Messages and calls are end-to-end encrypted.
31/12/2023, 22:16 - Anna: Самовар: 900
вторая строка

31/12/2023, 22:17 - Boris: да
31/12/2023, 22:17 - Boris: да
01/01/2024, 9:05 - Anna: <Media omitted>
01/01/2024, 9:06 - Anna: IMG-20240101-WA0001.jpg (file attached)
подпись
01/01/2024, 9:07 - Anna: This message was deleted
01/01/2024, 9:08 - Anna changed the subject to “Чай: кофе”
"""
IOS = """[31.12.23, 22:15:03] Чай: \u200eMessages and calls are end-to-end encrypted.
\u200e[31.12.23, 22:16:04] Anna: Самовар <https://e.org>
вторая строка
[31.12.23, 22:17:05] ~\u202fBoris: \u200eimage omitted
[01.01.24, 09:05:06] Anna: подпись \u200e<attached: 00000012-PHOTO.jpg>
[01.01.24, 09:06:06] Anna: позже \u200e<This message was edited>
"""


class TestWhatsApp:
    def test_file_of_android_is_read(self, tmp_path):
        path = write(tmp_path / "WhatsApp Chat with Чай.txt", ANDROID)
        messages = read_messages(path)
        found = list(messages)
        assert [(m.text, m.sender, f"{m.time:%Y-%m-%d %H:%M:%S}") for m in found] == [
            ("Самовар: 900\nвторая строка", "Anna", "2023-12-31 22:16:00"),
            ("да", "Boris", "2023-12-31 22:17:00"),
            ("да", "Boris", "2023-12-31 22:17:00"),
            ("подпись", "Anna", "2024-01-01 09:06:00"),
        ]
        assert {(m.source, m.channel) for m in found} == {("whatsapp:Чай", "Чай")}
        assert len({m.id for m in found}) == 4
        assert messages.report.skipped == {
            "service messages": 2,
            "attachments and notices": 1,
            "deleted messages": 1,
        }

    def test_file_of_ios_is_read(self, tmp_path):
        (tmp_path / "WhatsApp Chat - Чай").mkdir()
        path = write(tmp_path / "WhatsApp Chat - Чай" / "_chat.txt", IOS.replace("\n", "\r\n"))
        messages = read_messages(path)
        assert [(m.text, m.sender, f"{m.time:%Y-%m-%d %H:%M:%S}", m.source) for m in messages] == [
            *[
                (
                    "Самовар <https://e.org>\nвторая строка",
                    "Anna",
                    "2023-12-31 22:16:04",
                    "whatsapp:Чай",
                )
            ],
            *[("подпись", "Anna", "2024-01-01 09:05:06", "whatsapp:Чай")],
            *[("позже", "Anna", "2024-01-01 09:06:06", "whatsapp:Чай")],
        ]
        assert messages.report.skipped == {"attachments and notices": 2}

    @pytest.mark.parametrize(
        ("time", "read_as"),
        [
            ("13/05/2024, 22:16 - ", "2024-05-13 22:16:00"),
            ("5/13/24, 10:16 PM - ", "2024-05-13 22:16:00"),
            ("5/13/24, 12:16\u202fAM - ", "2024-05-13 00:16:00"),
            ("13/5/2024 12:16 p. m. - ", "2024-05-13 12:16:00"),
            ("13.05.24, 22:16 - ", "2024-05-13 22:16:00"),
            ("13.05.2024, 22:16:07 – ", "2024-05-13 22:16:07"),
            ("2024-05-13, 22:16 - ", "2024-05-13 22:16:00"),
            ("2024/05/13, 22:16 - ", "2024-05-13 22:16:00"),
            ("13-05-2024 22.16 - ", "2024-05-13 22:16:00"),
            ("13/05/2024 à 22:16 - ", "2024-05-13 22:16:00"),
            ("[13/05/2024, 22:16:07] ", "2024-05-13 22:16:07"),
            ("[5/13/24, 10:16:07\u202fPM] ", "2024-05-13 22:16:07"),
            ("\u200e[2024-05-13, 22:16:07] ", "2024-05-13 22:16:07"),
        ],
    )
    def test_times_of_all_forms_are_read(self, tmp_path, time, read_as):
        [message] = read(write(tmp_path / "a.txt", f"{time}Anna: Самовар\n"))
        assert (f"{message.time:%Y-%m-%d %H:%M:%S}", message.text) == (read_as, "Самовар")

    @pytest.mark.parametrize(
        ("dates", "days", "note"),
        [
            (["1/2/24", "13/2/24"], ["2024-02-01", "2024-02-13"], False),
            (["1/2/24", "1/13/24"], ["2024-01-02", "2024-01-13"], False),
            (["9/2/24", "10/2/24", "1/3/24"], ["2024-02-09", "2024-02-10", "2024-03-01"], False),
            (["2/9/24", "2/10/24", "3/1/24"], ["2024-02-09", "2024-02-10", "2024-03-01"], False),
            (["1/2/24"], ["2024-02-01"], True),
            (["2/2/24"], ["2024-02-02"], False),
        ],
    )
    def test_whole_file_decides_whether_the_day_comes_first(self, tmp_path, dates, days, note):
        content = "".join(f"{date}, 10:16 - Anna: Самовар\n" for date in dates)
        messages = read_messages(write(tmp_path / "a.txt", content))
        assert [f"{message.time:%Y-%m-%d}" for message in messages] == days
        assert any("the day comes first" in note for note in messages.report.notes) == note

    def test_month_comes_first_where_halves_of_days_are_american(self, tmp_path):
        [message] = read(write(tmp_path / "a.txt", "1/2/24, 10:16 AM - Anna: Самовар\n"))
        assert f"{message.time:%Y-%m-%d}" == "2024-01-02"

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("13/5/24, 1:00 - A: a\n5/13/24, 1:00 - A: a\n", "in others the month"),
            ("31/02/2024, 1:00 - A: a\n", "31/02/2024"),
            ("13/5/24, 25:00 - A: a\n", "25:00"),
            ("13/5/24, 1:00 - A: ы\n".encode("cp1251"), "expected UTF-8 text; convert it"),
        ],
    )
    def test_file_with_impossible_times_is_rejected(self, tmp_path, content, why):
        assert why in complaint(write(tmp_path / "a.txt", content))

    def test_longer_export_repeats_the_identifiers(self, tmp_path):
        first = read(write(tmp_path / "a.txt", ANDROID))
        longer = read(write(tmp_path / "b.txt", ANDROID + "02/01/2024, 9:05 - Anna: ещё\n"))
        assert longer[: len(first)] == first and len(longer) == len(first) + 1


HTML = "<!DOCTYPE html>\n<html><head>{}</head><body>{}</body></html>"


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            (
                "messages.html",
                HTML.format("<title>Exported Data</title>", '<div class="message clearfix">'),
                ("Telegram Desktop", "Machine-readable JSON"),
            ),
            (
                "m.html",
                HTML.format("", '<div class="message__header">А, 1 мая</div>').encode("cp1251"),
                ("VK", "id,text,channel,time"),
            ),
            ("d.html", HTML.format("", '<div class="chatlog__message">'), ("--format Json",)),
            ("other", "<!-- x -->\n<HTML>", ("HTML", "JSON or CSV")),
            ("page", "\ufeff<!doctype HTML>", ("HTML",)),
            ("x.xml", '<?xml version="1.0"?><smses/>', ("XML", "JSON or CSV")),
            ("xhtml", '<?xml version="1.0"?><html/>', ("HTML",)),
            (
                "chat.sql",
                "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE m(i, t);",
                ("sqlite3 chat.db < chat.sql",),
            ),
            ("x.sql", "-- a comment\nINSERT INTO m VALUES(1,'a');", ("sqlite3 x.db < x.sql",)),
            (
                "x.sql",
                "-- MySQL dump 10.13\n/*!40101 SET NAMES utf8 */;\nDROP TABLE IF EXISTS `m`;\n"
                "CREATE TABLE `m` (`i` int);",
                ("MySQL", "CSV"),
            ),
            (
                "x.sql",
                "--\n-- PostgreSQL database dump\n--\nSET client_encoding = 'UTF8';\n"
                "CREATE TABLE public.m (i int);",
                ("PostgreSQL", "\\copy"),
            ),
            ("chat.db", bytes(range(256)) * 8, ("encrypted", "copy it again")),
            ("msgstore.db.crypt15", bytes(range(255, 0, -1)) * 8, ("WhatsApp", "from the app")),
            ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99), ("a picture",)),
            ("a.pdf", b"%PDF-1.7\n%\xe2", ("PDF", "CSV")),
            ("a.parquet", b"PAR1" + bytes(99), ("Parquet", "CSV")),
            ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(99), ("Office", "CSV")),
            ("chat.db", b"SQLite format 3", ("damaged", "copy it again")),
            (
                "chat.txt",
                "=======\nGuild: Кухня\nChannel: чай\n=======\n\n[1/1/2024 10:00 AM] vera\nда\n",
                ("DiscordChatExporter", "--format Json"),
            ),
            ("chat.db", b"", ("empty", "export or copy it again")),
        ],
    )  # fmt: skip
    def test_file_is_refused_with_the_way_out(self, tmp_path, name, content, words):
        message = complaint(write(tmp_path / name, content))
        assert all(word in message for word in words)
        assert "\n" not in message

    @given(
        st.sampled_from(
            ["[31.12.23, 22:15:03] Анна: а\n", "31/12/23, 22:15 - A: а\n", "{\n", "[{"]
        ).flatmap(lambda start: st.text(max_size=80).map(start.__add__))
    )
    @settings(max_examples=150, deadline=None)
    def test_any_text_is_read_or_rejected(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / "any text"
        path.write_bytes(content.encode(errors="surrogatepass"))
        try:
            messages = read(path)
        except InvalidFile:
            assert len(complaint(path).splitlines()) == 1
            return
        assert all(message.id.strip() and message.text.strip() for message in messages)


class TestStartsOfFiles:
    @pytest.mark.parametrize(
        "text",
        [
            "-" * 60,
            "/*!40101 SET NAMES utf8 */;\n" * 40,
            "<!-- a -->\n" * 40,
            "--\n" * 60 + "SET a = 1",
            "SET a = 1;\n" * 40,
        ],
    )
    def test_long_starts_are_recognised_in_linear_time(self, tmp_path, text):
        """A pattern that goes back would take years."""
        reason = complaint(write(tmp_path / "a.txt", text + "\nпросто заметки"))
        assert reason.startswith(str(tmp_path / "a.txt")) and "\n" not in reason

    def test_dump_of_postgresql_is_named(self, tmp_path):
        dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET lock_timeout = 0;\n"
        dump += (
            "SELECT pg_catalog.set_config('search_path', '', false);\n\nCREATE TABLE public.a (\n"
        )
        assert "SQL" in complaint(write(tmp_path / "a.sql", dump))
