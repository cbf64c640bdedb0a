"""The exports of chats and databases in shared/field-cases: each comes in, or says why not.

Words are what the summary or the error must have; the number is that of messages read.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CORPUS
from serving import ROOT

from feedsieve.message import InvalidFile
from feedsieve.sources.naming import NamedMessages
from feedsieve.sources.readers import read_messages
from feedsieve.sources.report import ReadReport, counted
from feedsieve.sources.unpack import unpacked

FOLDER = CORPUS.parents[1] / "field-cases" / "import"
MENDED, SERVICE = "mended: ", "service messages (1)"
CASES = {
    "ChatExport_2025-01-01/result.json": (1, "telegram:channel:500"),
    "o01_discord.json": (1, "DiscordChatExporter's JSON", 'discord:2 "G / flats"'),
    "o03_slack.json": (1, "Slack's export", "file:o03_slack"),
    "o04_whatsapp.txt": (2, "WhatsApp's text file", "file:o04_whatsapp", SERVICE),
    "o05_vk.html": (0, "VK's archive as HTML", "CSV"),
    "s01_tg_archive.sqlite": (1, "tg-archive's database", "file:s01_tg_archive"),
    "s02_telegram_export.db": (1, "telegram-export's database", "telegram:user:5"),
    "s04_view.db": (1, "SQLite chat dump", "file:s04_view"),
    "s06_dup_ids.db": (3, "SQLite chat dump", "name:A", "name:B"),
    "s07_fts5.db": (1, "SQLite chat dump", "name:A"),
    "s08_rowid_column.db": (2, "SQLite chat dump"),
    "s09_dump.sql": (0, "an SQL dump as text", "sqlite3 s09_dump.db < s09_dump.sql"),
    "s10_encrypted.db": (0, "encrypted database", "decrypted"),
    "s11_utf16.db": (1, "SQLite chat dump"),
    "s12_negative_rowid.db": (3, "SQLite chat dump"),
    "s14_0bytes.db": (0, "the file is empty", "copy it again"),
    "t01_custom_emoji_unquoted.json": (3, f"{MENDED}values without quotes (1)"),
    "t03_full_account.json": (
        *(5, "telegram:user:11", "telegram:user:12", "telegram:channel:13", "telegram:group:14"),
        *(SERVICE, "without text (2)", "unsupported messages (1)"),
    ),
    "t04_chatA.json": (3, "telegram:channel:101"),
    "t04_chatB.json": (3, "telegram:channel:202"),
    "t05_migrated.json": (2, "telegram:channel:300", SERVICE),
    "t06_messages.html": (0, "Telegram Desktop's export as HTML", "Machine-readable JSON"),
    "t07_list_toplevel.json": (2, "a JSON list of messages", "file:t07_list_toplevel"),
    "t08_telethon.jsonl": (2, "JSON Lines", "telegram:channel:7", "file:t08_telethon"),
    "t09_whatsapp_tg.json": (2, "telegram:group:35799000000"),
    "t11_trailing_comma.json": (1, f"{MENDED}trailing commas (1)"),
    "t12_nan_dates.json": (1, "messages whose time is unknown: 1"),
    "t13_text_null_part.json": (2, "telegram:user:1"),
    "t14_export.zip": (1, "Telegram Desktop's export"),
    "t14_result.json.gz": (1, "Telegram Desktop's export"),
    "t15_tg_history_dumper.jsonl": (2, "JSON Lines", "file:t15_tg_history_dumper"),
    "t16_renamed.json": (3, "telegram:channel:101"),
    "t17_single_of_13.json": (2, "telegram:channel:13", SERVICE, "without text (2)"),
    "t18_same_name_1.json": (3, "telegram:channel:101"),
    "t18_same_name_2.json": (3, "telegram:channel:202"),
    "t19_null_1.json": (3, "telegram:channel:101"),
    "t19_null_2.json": (3, "telegram:channel:202"),
    "t20_text_link.json": (3, "telegram:channel:7", "buttons", "file names"),
    "t21_b_named_a.json": (3, "telegram:channel:202"),
}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


def summary(path: Path) -> tuple[int, str]:
    """Return the number of messages of a file, and what is said about it."""
    try:
        with unpacked(path, ReadReport()) as [file]:
            messages = read_messages(file)
            named = NamedMessages(messages, file, None)
            count = sum(1 for _message in named)
    except InvalidFile as error:
        return 0, str(error)
    report = messages.report
    said = [report.format, *map(str, named.sources.values()), counted(report.skipped)]
    return count, "; ".join([*said, *report.lines()])


@pytest.mark.parametrize("name", CASES)
def test_field_case_comes_in_or_says_why_not(name):
    wanted, *words = CASES[name]
    count, said = summary(FOLDER / name)
    assert count == wanted
    assert [word for word in words if word not in said] == []
    assert "\n" not in said


def test_every_field_case_of_chats_is_in_the_table():
    files = {path.name for path in FOLDER.glob("[tos]*") if path.is_file()}
    assert files <= CASES.keys()


def test_links_polls_and_edits_of_a_full_export_are_read():
    by_key = {(m.source, m.id): m for m in read_messages(FOLDER / "t03_full_account.json")}
    offer = by_key["telegram:channel:13", "7"]
    assert "(https://example.org/a)" in offer.text
    assert (offer.link, offer.reply_to, offer.sender) == ("https://t.me/c/13/7", "3", "Z")
    assert offer.edited and offer.edited.year == 2024
    assert by_key["telegram:channel:13", "8"].text.count("\n- ") == 1
    single = list(read_messages(FOLDER / "t17_single_of_13.json"))
    assert single == [by_key[message.source, message.id] for message in single]


def test_command_reports_each_field_case_once(tmp_path):
    files = [FOLDER / name for name in CASES]
    done = subprocess.run(
        [sys.executable, "-m", "feedsieve", "import", "--dry-run", *map(str, files)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    for name, (count, *_words) in CASES.items():
        start = f"{FOLDER / name}: " if count else f"feedsieve: {FOLDER / name}: "
        assert sum(line.startswith(start) for line in lines) == 1, name
