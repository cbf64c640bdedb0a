"""Identity of messages: sources, their keys and titles, and identifiers in routes."""

from datetime import UTC, datetime, timedelta

import pytest
from stores import content, history, location, new_location, query, score_all, score_of, store

from feedsieve.message import Message
from feedsieve.sources.keys import bot_api_key, file_key, telegram_key
from feedsieve.store.ingest import ImportCounts, SourceConflict
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
CHAT = "telegram:channel:101"


def texts(source: str, *texts: str, title: str | None = None, start: int = 1) -> list[Message]:
    return [
        Message(str(number), text, title, source=source) for number, text in enumerate(texts, start)
    ]


class TestKeys:
    @pytest.mark.parametrize(
        ("chat_id", "key"),
        [
            (-1001234567890, "telegram:channel:1234567890"),
            (-100101, "telegram:group:100101"),
            (-1000000000101, CHAT),
            (-4567, "telegram:group:4567"),
            (4567, "telegram:user:4567"),
        ],
    )
    def test_bots_and_exports_name_a_chat_alike(self, chat_id, key):
        assert bot_api_key(chat_id) == key

    @pytest.mark.parametrize(
        ("name", "key"), [("a/chat.csv", "chat"), ("b.csv.gz", "b"), (".hidden", ".hidden")]
    )
    def test_file_names_a_source_without_its_ending(self, name, key, tmp_path):
        assert file_key(tmp_path / name) == f"file:{key}"


class TestSources:
    def test_chats_of_one_name_are_two_sources(self, store):
        store.add(texts("telegram:channel:101", "дом", "сад", title="Аренда"))
        counts = store.add(texts("telegram:channel:202", "кот", "пёс", title="Аренда"))
        assert counts == ImportCounts(2, 0, 0)
        assert store.get("1").text == "дом"
        assert store.get("Аренда:1").text == "кот"
        assert store.count() == 4

    def test_third_chat_of_one_name_gets_its_key_as_prefix(self, store):
        for number in (101, 202, 303):
            store.add(texts(telegram_key("channel", number), f"текст {number}", title="Аренда"))
        assert store.get("telegram:channel:303:1").text == "текст 303"
        assert store.count() == 3

    def test_renamed_chat_is_the_same_source(self, store, location):
        store.add(texts(CHAT, "дом", "сад", title="Аренда"))
        counts = store.add(texts(CHAT, "дом, сдано", "сад", title="Аренда (новая)"))
        assert counts == ImportCounts(0, 1, 1)
        assert store.get("1").channel == store.get("2").channel == "Аренда (новая)"
        assert history(location) == [("1", "дом")]
        assert query(location, "SELECT count(*) FROM sources") == [(1,)]

    def test_files_without_source_do_not_replace_each_other(self, store):
        store.add(texts("file:chat1", "дом", "сад"), is_update=False)
        counts = store.add(texts("file:chat2", "кот", "пёс"), is_update=False)
        assert counts == ImportCounts(2, 0, 0)
        assert store.get("chat2:1").text == "кот"

    def test_renamed_file_is_recognised_by_its_texts(self, store):
        store.add(texts("file:chat", "дом", "сад", "лес", "река"))
        counts = store.add(texts("file:chat (1)", "дом", "сад", "лес", "река, луг", "море"))
        assert counts == ImportCounts(1, 1, 3)
        assert counts.recognised == (("file:chat (1)", "file:chat"),)

    def test_table_and_export_of_one_chat_are_one_source_in_any_order(self, new_location):
        table = [Message(str(n), f"текст {n}", "Аренда") for n in range(9)]
        export = texts(CHAT, *(f"текст {n}" for n in range(9)), title="Аренда", start=0)
        for first, second in ((table, export), (export, table)):
            store = MessageStore.open(new_location())
            store.add(first)
            assert store.add(second).added == 0
            assert store.get("1").source == CHAT
            store.close()

    @pytest.mark.parametrize("before", [997, 998, 999, 1000])
    def test_source_is_recognised_wherever_its_first_messages_are(self, store, before):
        """Imports store a thousand messages at a time."""
        known = [f"текст {number}" for number in range(50)]
        store.add(texts("name:Б", *known, title="Б"))
        others = texts("name:А", *map(str, range(before)), title="А")
        counts = store.add([*others, *texts(CHAT, *known, title="Б")])
        assert (counts.added, counts.unchanged) == (before, 50)

    def test_message_without_a_title_does_not_hide_that_of_the_others(self, store):
        store.add([Message("1", "дом", "Чат", source="name:x")])
        first = Message("1", "сад", "Двор", source=CHAT)
        [stored, _other] = store.save_messages([first, Message("2", "кот", source=CHAT)])
        assert stored.id == "Двор:1"
        assert store.get("2").channel == "Двор"

    def test_repeated_identifier_counts_as_a_change(self, store):
        counts = store.add([Message("1", "дом"), Message("2", "сад"), Message("1", "кот")])
        assert counts == ImportCounts(2, 1, 0)

    def test_chat_is_not_taken_for_another_of_its_name(self, store):
        store.add([Message(str(n), f"дом {n}", "Аренда") for n in range(9)])
        assert store.add(texts(CHAT, "кот", "пёс", title="Аренда")).added == 2

    def test_few_equal_texts_do_not_make_two_chats_one(self, store):
        store.add(texts("file:chat", "дом", "сад"))
        assert store.add(texts(CHAT, "дом", "сад")).added == 2
        assert store.get("1").source == "file:chat"

    def test_key_before_is_reported(self, store):
        store.add(texts("file:chat", "дом", "сад", "лес"))
        counts = store.add(texts(CHAT, "дом", "сад", "лес", "река"))
        assert counts.recognised == ((CHAT, "file:chat"),)

    def test_full_export_imported_again_adds_nothing(self, store, location):
        export = [*texts(CHAT, "дом", title="А"), *texts("telegram:group:9", "кот", title="Б")]
        store.add(export)
        before = content(location)
        assert store.add(export) == ImportCounts(0, 0, 2)
        assert content(location) == before


class TestConflicts:
    @pytest.mark.parametrize("source", ["name:chat", "file:chat"])
    def test_two_files_of_one_name_are_refused(self, store, location, source):
        store.add(texts(source, "дом", "сад"), is_update=False)
        before = content(location)
        with pytest.raises(SourceConflict, match=f"2 of 2 .* in {source} .*--source.*--update"):
            store.add(texts(source, "кот", "пёс"), is_update=False)
        assert content(location) == before
        assert store.add(texts(source, "кот", "пёс"), is_update=True) == ImportCounts(0, 2, 0)

    def test_few_changed_texts_are_edits(self, store):
        store.add(texts("file:chat", "дом", "сад", "лес"), is_update=False)
        counts = store.add(texts("file:chat", "дом", "сад!", "лес"), is_update=False)
        assert counts == ImportCounts(0, 1, 2)

    def test_identifiers_that_repeat_in_a_file_are_refused(self, store):
        messages = [Message("1", text, source="file:chat") for text in ("дом", "сад", "лес")]
        with pytest.raises(SourceConflict, match="2 of 2 identifiers that repeat"):
            store.add(messages, is_update=False)
        assert store.count() == 0

    def test_texts_with_time_of_edit_are_edits(self, store):
        store.add(texts("name:chat", "дом"), is_update=False)
        edited = Message("1", "дом продан", source="name:chat", edited=NOON)
        assert store.add([edited], is_update=False).changed == 1

    def test_chat_known_for_certain_is_never_refused(self, store):
        store.add(texts(CHAT, "дом", "сад"), is_update=False)
        assert store.add(texts(CHAT, "кот", "пёс"), is_update=False).changed == 2


class TestEdits:
    def test_older_export_does_not_undo_an_edit(self, store):
        new = Message("1", "900", source=CHAT, time=NOON, edited=NOON + timedelta(days=2))
        store.add([new])
        for old in (
            Message("1", "1000", source=CHAT, time=NOON),
            Message("1", "950", source=CHAT, time=NOON, edited=NOON + timedelta(days=1)),
        ):
            assert store.add([old]) == ImportCounts(0, 0, 1)
        assert store.get("1").text == "900"

    def test_missing_fields_are_filled_in(self, store):
        store.add([Message("1", "дом", source=CHAT)])
        full = Message(
            "1",
            "дом",
            "Аренда",
            NOON,
            CHAT,
            sender="Вера",
            link="https://t.me/c/101/1",
            reply_to="7",
            edited=NOON,
        )
        assert store.add([full]) == ImportCounts(0, 1, 0)
        assert store.get("1") == full
        other = Message("1", "дом", source=CHAT, link="https://t.me/arenda/1", sender="Вера К.")
        assert store.add([other]) == ImportCounts(0, 0, 1)
        assert store.get("1") == full


class TestSaveMessages:
    def test_outcome_of_each_message_is_returned_in_order(self, store):
        store.add([Message("1", "дом", "А"), Message("2", "сад", "А")])
        batch = [
            Message("2", "сад", "А"),
            Message("1", "дом продан", "А"),
            Message("1", "кот", "Б"),
            Message("3", "лес", "А"),
            Message("3", "лес", "А"),
        ]
        found = [(one.id, one.outcome) for one in store.save_messages(batch)]
        assert found == [
            ("2", "unchanged"),
            ("1", "changed"),
            ("Б:1", "added"),
            ("3", "added"),
            ("3", "unchanged"),
        ]


class TestDelete:
    def test_text_history_and_scores_are_deleted(self, store, location):
        store.add([Message("1", "секрет раз"), Message("2", "другое")])
        score_all(store, lambda text: 0.5)
        store.add([Message("1", "секрет два")])
        score_all(store, lambda text: 0.5)
        assert store.delete("1", "api")
        assert store.get("1") is None and store.count() == 1
        assert history(location) == []
        assert query(location, "SELECT count(*) FROM scores") == [(1,)]
        assert query(location, "SELECT count(*) FROM texts") == [(1,)]
        assert query(location, "SELECT source_id, who FROM deletions") == [("1", "api")]

    def test_score_stays_if_another_message_has_the_text(self, store):
        store.add([Message("1", "дом"), Message("2", "дом")])
        score_all(store, lambda text: 0.5)
        store.delete("1", "api")
        assert score_of(store, "classifier:one", "2") == 0.5

    def test_unknown_message_is_not_deleted(self, store):
        assert not store.delete("1", "api")

    def test_deleted_message_stays_deleted_when_imported_again(self, store):
        chat = texts(CHAT, "дом", "сад", title="А")
        store.add(chat)
        store.delete("1", "api")
        assert store.add(chat) == ImportCounts(0, 0, 1, deleted=1)
        [first, _second] = store.save_messages(chat)
        assert (first.id, first.outcome) == ("1", "deleted")
        assert store.get("1") is None

    def test_deleted_message_stays_deleted_when_its_source_gets_a_better_key(self, store):
        numbered = [f"текст {number}" for number in range(9)]
        store.add(texts("name:А", *numbered, title="А"))
        store.delete("3", "api")
        counts = store.add(texts(CHAT, *numbered, title="А"))
        assert (counts.added, counts.deleted) == (0, 1)
        again = store.add(texts(CHAT, *numbered, title="А"))
        assert (again.added, again.deleted) == (0, 1)

    def test_deleted_text_leaves_sqlites_file(self, tmp_path):
        store = MessageStore.open(tmp_path / "store.db")
        store.add([Message("1", "очень приметный текст"), Message("2", "другое")])
        store.delete("1", "api")
        store.close()
        assert "приметный".encode() not in (tmp_path / "store.db").read_bytes()
