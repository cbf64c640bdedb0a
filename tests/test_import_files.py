"""`feedsieve import`: one summary line for each file, notes, and exit codes."""

import gzip
import json
import sqlite3
import zipfile
from contextlib import closing

import pytest
from test_readers import write
from test_telegram import chat, entry

from feedsieve.__main__ import main
from feedsieve.settings import settings
from feedsieve.sources import keys
from feedsieve.store.store import MessageStore


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    """Run `feedsieve import` in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEEDSIEVE_DB", "own.db")
    settings.cache_clear()

    def run(*arguments):
        code = main(["import", *arguments])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield run
    settings.cache_clear()


def telegram(path, *chats):
    content = chats[0] if len(chats) == 1 else {"chats": {"list": list(chats)}}
    return write(path, json.dumps(content))


def test_blank_source_and_channel_are_none(imported, tmp_path):
    write(tmp_path / "table.csv", "msg_id,msg,channel\n1,Чай,  \n")
    code, out, _err = imported("table.csv", "--source", "  ")
    assert code == 0
    assert out[0] == "table.csv: CSV, file:table: 1 new, 0 changed, 0 known already"


class TestSummary:
    def test_one_line_names_format_source_and_counts(self, imported, tmp_path):
        entries = [entry(1, "Чай"), entry(2, ""), {"id": 3, "type": "service"}]
        telegram(tmp_path / "result.json", chat(5, "Кухня", *entries))
        code, out, err = imported("result.json")
        assert (code, err) == (0, [])
        assert out == [
            'result.json: Telegram Desktop\'s export, telegram:group:5 "Кухня": 1 new, 0 changed,'
            " 0 known already; skipped: without text (1), service messages (1)",
            f"sqlite:///{tmp_path}/own.db now has 1 messages",
        ]

    def test_notes_are_indented_lines(self, imported, tmp_path):
        write(
            tmp_path / "a.json",
            '{"id": 5, "name": "Кухня", "messages": [{"id": 1, "date": hidden, "text": "Чай"},]}',
        )
        _code, out, _err = imported("a.json")
        assert out[1:3] == [
            "  mended: values without quotes (1), trailing commas (1)",
            "  messages whose time is unknown: 1, the first has 'hidden'",
        ]

    def test_many_sources_have_a_line_each(self, imported, tmp_path):
        chats = [chat(number, f"Чат {number}", entry(1, "Чай")) for number in range(5)]
        telegram(tmp_path / "a.json", *chats)
        _code, out, _err = imported("a.json")
        assert "Telegram Desktop's export, 5 sources: 5 new" in out[0]
        assert out[1:6] == [
            f'  telegram:group:{number} "Чат {number}": 1 messages' for number in range(5)
        ]

    def test_import_repeated_changes_nothing(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай"), entry(2, "Кофе")))
        imported("a.json")
        code, out, _err = imported("a.json")
        assert code == 0
        assert "0 new, 0 changed, 2 known already" in out[0]

    def test_renamed_full_and_single_export_are_one_source(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        telegram(tmp_path / "b.json", chat(5, "Столовая", entry(1, "Чай")), chat(6, "Дом"))
        imported("a.json")
        _code, out, _err = imported("b.json")
        assert 'telegram:group:5 "Столовая": 0 new, 0 changed, 1 known already' in out[0]

    def test_dry_run_stores_nothing(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        code, out, err = imported("--dry-run", "a.json")
        assert (code, err) == (0, [])
        assert out == [
            'a.json: Telegram Desktop\'s export, telegram:group:5 "Кухня": 1 messages, not stored'
        ]
        assert not (tmp_path / "own.db").exists()


class TestSources:
    @pytest.mark.parametrize(
        ("content", "name", "said"),
        [
            ("id,text\n1,Чай\n", None, "file:table:"),
            ("id,text,channel\n1,Чай,Кухня\n", None, 'name:Кухня "Кухня":'),
            ("id,text\n1,Чай\n", "дом", 'name:дом "дом":'),
            ("id,text,channel\n1,Чай,Кухня\n", "дом", 'name:дом/Кухня "Кухня":'),
            ('[{"id": 1, "text": "Чай", "chat_id": 7}]', None, "name:7:"),
            ('[{"id": 1, "text": "Чай", "chat_id": 7}]', "дом", 'name:дом/7 "дом":'),
            ('[{"id": 1, "text": "Чай"}]', None, "file:table:"),
            ('[{"id": 1, "text": "Чай"}]', "дом", 'name:дом "дом":'),
        ],
    )
    def test_file_without_sources_gets_one(self, imported, tmp_path, content, name, said):
        write(tmp_path / "table.2024.csv", content)
        code, out, _err = imported("table.2024.csv", *(["--source", name] if name else []))
        assert code == 0
        assert f", {said} 1 " in out[0]

    def test_name_does_not_replace_the_source_that_a_file_has(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        _code, out, _err = imported("a.json", "--source", "дом")
        assert keys.telegram_key("group", 5) in out[0]
        assert out[1] == "  --source is not used: the file names its sources"

    def test_file_of_the_same_name_with_other_texts_is_refused(self, imported, tmp_path):
        for folder, texts in (("a", "Чай Кофе Какао"), ("b", "Ложка Вилка Нож")):
            (tmp_path / folder).mkdir()
            rows = "".join(f"{n},{text}\n" for n, text in enumerate(texts.split()))
            write(tmp_path / folder / "table.csv", f"id,text\n{rows}")
        assert imported("a/table.csv")[0] == 0
        code, out, err = imported("b/table.csv")
        assert (code, len(out)) == (1, 1)
        assert "--source NAME" in err[0] and "--update" in err[0]
        _code, out, _err = imported("b/table.csv", "--source", "b")
        assert 'name:b "b": 3 new' in out[0]

    def test_store_is_not_imported_into_itself(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        imported("a.json")
        code, out, err = imported("own.db")
        assert (code, err) == (0, [])
        assert out[0] == "own.db: the message store itself; its messages are there already"
        assert out[1].endswith("now has 1 messages")


class TestFailures:
    def test_bad_file_does_not_keep_the_others_out(self, imported, tmp_path):
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        write(tmp_path / "b.json", '{"guild": 1}')
        telegram(tmp_path / "c.json", chat(6, "Дом", entry(1, "Кофе")))
        code, out, err = imported("a.json", "b.json", "none.json", "c.json")
        assert code == 1
        assert [line.split(":")[0] for line in out] == ["a.json", "c.json", "sqlite"]
        assert out[-1].endswith("own.db now has 2 messages")
        assert err[0].startswith("feedsieve: b.json: expected")
        assert err[1] == "feedsieve: none.json: No such file or directory"
        assert err[2] == "feedsieve: not imported: b.json, none.json"

    @pytest.mark.parametrize(
        "content",
        [
            json.dumps(chat(5, "Кухня")),
            json.dumps(chat(5, "Кухня", {"id": 1, "type": "service"}, entry(2, ""))),
            "[]",
            "id,text\n",
            "01/02/24, 10:00 - Anna added Boris\n",
        ],
    )
    def test_import_that_takes_nothing_fails(self, imported, tmp_path, content):
        write(tmp_path / "a", content)
        code, out, err = imported("a")
        assert code == 1
        assert "no messages" in out[0]
        assert err == ["feedsieve: no messages in: a"]

    def test_file_that_breaks_off_stores_nothing(self, imported, tmp_path):
        content = json.dumps(chat(5, "Кухня", *(entry(n, "Чай") for n in range(3000))))
        write(tmp_path / "a.json", content[:-20])
        code, out, err = imported("a.json")
        assert code == 1
        assert [line.partition(" ")[2] for line in out] == ["now has 0 messages"]
        assert "it is cut off" in err[0]

    def test_unavailable_store_ends_the_import(self, imported, tmp_path):
        (tmp_path / "own.db").mkdir()
        telegram(tmp_path / "a.json", chat(5, "Кухня", entry(1, "Чай")))
        code, out, err = imported("a.json", "a.json")
        assert (code, out, len(err)) == (1, [], 1)

    def test_store_that_is_lost_meanwhile_ends_the_import(self, imported, tmp_path):
        for name in ("a.json", "b.json"):
            telegram(tmp_path / name, chat(5, "Кухня", entry(1, "Чай")))
        MessageStore.open("own.db").close()
        with closing(sqlite3.connect("own.db")) as connection:
            connection.execute("ALTER TABLE texts RENAME TO gone")
            connection.execute("CREATE VIEW texts AS SELECT * FROM gone")
        code, out, err = imported("a.json", "b.json")
        assert (code, out, len(err)) == (1, [], 1)


class TestUnpacked:
    def test_compressed_file_keeps_its_name_and_source(self, imported, tmp_path):
        write(tmp_path / "table.csv.gz", gzip.compress(b"id,text\n1,a\n"))
        _code, out, _err = imported("table.csv.gz")
        assert out[0].startswith("table.csv.gz: CSV, file:table: 1 new")

    def test_error_names_the_compressed_file(self, imported, tmp_path):
        write(tmp_path / "chat.json.gz", gzip.compress(b'{"guild": 1}'))
        code, _out, err = imported("chat.json.gz")
        assert code == 1
        assert err[0].startswith("feedsieve: chat.json.gz: expected")

    def test_files_of_an_archive_have_a_line_each(self, imported, tmp_path):
        with zipfile.ZipFile("chats.zip", "w") as archive:
            archive.writestr("a.json", json.dumps(chat(5, "Кухня", entry(1, "Чай"))))
            archive.writestr("b.json", '{"guild": 1}')
        code, out, err = imported("chats.zip")
        assert code == 1
        assert out[0].startswith("chats.zip/a.json: Telegram Desktop's export")
        assert err[0].startswith("feedsieve: chats.zip/b.json: expected")
        assert err[1] == "feedsieve: not imported: chats.zip/b.json"

    def test_folder_with_a_file_without_messages_is_imported(self, imported, tmp_path):
        (tmp_path / "slack" / "чай").mkdir(parents=True)
        day = [{"type": "message", "user": "U1", "text": "a", "ts": "1714564800.000100"}]
        write(tmp_path / "slack" / "чай" / "2024-05-01.json", json.dumps(day))
        write(tmp_path / "slack" / "users.json", json.dumps([{"id": "U1", "team_id": "T1"}]))
        code, out, err = imported("slack")
        assert (code, err) == (0, [])
        assert out[0].startswith("slack/users.json: Slack's export, no messages")
        assert 'slack/чай/2024-05-01.json: Slack\'s export, slack:чай "чай": 1 new' in out[1]

    def test_archive_of_whatsapp_names_the_chat(self, imported, tmp_path):
        with zipfile.ZipFile("WhatsApp Chat - Чай.zip", "w") as archive:
            archive.writestr("_chat.txt", "[31.12.24, 22:15:03] Anna: Самовар\n")
            archive.writestr("00000001-PHOTO.jpg", "")
        _code, out, _err = imported("WhatsApp Chat - Чай.zip")
        assert 'whatsapp:Чай "Чай": 1 new' in out[0]


class TestFormat:
    def test_named_format_replaces_the_recognised_one(self, imported, tmp_path):
        write(tmp_path / "a", "id,text\n1,Чай\n")
        assert imported("a", "--format", "csv")[0] == 0
        code, _out, err = imported("a", "--format", "telegram")
        assert code == 1
        assert "expected Telegram Desktop's result.json" in err[0]

    @pytest.mark.parametrize(
        "form", ["csv", "discord", "json", "slack", "sqlite", "telegram", "whatsapp"]
    )
    @pytest.mark.parametrize(
        "content", ["id,text\n1,Чай\n", '{"a": [}', "[1]", "\0\1\2", "ы".encode("cp1251"), "[{}"]
    )
    def test_file_of_another_format_is_one_line(self, imported, tmp_path, form, content):
        write(tmp_path / "a", content)
        code, out, err = imported("a", "--format", form, "--dry-run")
        assert code == (0 if out and "not stored" in out[0] else 1)
        assert len(err) + len(out) in (1, 2, 3)

    def test_unknown_format_is_bad_usage(self, imported):
        assert imported("a", "--format", "vk")[0] == 2
