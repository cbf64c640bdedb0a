"""Labels in the message store."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from stores import location, new_location, query, store

from feedsieve.message import Message
from feedsieve.sources.keys import name_key
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.store.ingest import SourceConflict
from feedsieve.store.labels import GivenLabel, LabelCounts
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]

TEXT = "Отдам котёнка в добрые руки"
NEW_TEXT = "Котёнка уже забрали"


def at(day: int) -> datetime:
    return datetime(2026, 1, day, 9, 30, tzinfo=UTC)


def given(label, who="anna", day=1, **more) -> GivenLabel:
    return GivenLabel("7", label, who, "test", at(day), **more)


def labelled(message: Message, label="positive", who="anna", day=1, **more) -> LabelledMessage:
    return LabelledMessage(message, label, who, at(day), "labels.csv", **more)


def chat(count: int = 5, source: str = "telegram:channel:1") -> list[Message]:
    return [Message(f"{n}", f"Сообщение номер {n}", "Соседи", source=source) for n in range(count)]


def resolved(store) -> dict[str, str | None]:
    return {each.message.id: each.label for each in store.labels()}


@pytest.fixture
def one_message(store):
    store.add([Message("7", TEXT, "Соседи")])
    return store


class TestResolvedLabels:
    def test_label_of_one_person_counts(self, one_message):
        assert one_message.add_labels([given("positive", note="точно")]) == LabelCounts(added=1)
        [label] = one_message.labels()
        assert (label.label, label.message, label.source_id) == (
            "positive",
            one_message.get("7"),
            "7",
        )
        assert [(vote.who, vote.time, vote.note) for vote in label.deciding] == [
            ("anna", at(1), "точно")
        ]

    def test_last_label_of_a_person_counts_in_any_order_of_adding(self, one_message):
        one_message.add_labels([given("negative", day=3), given("positive", day=2)])
        assert resolved(one_message) == {"7": "negative"}
        assert [each.label for each in one_message.label_history("7")] == ["positive", "negative"]

    def test_withdrawn_label_does_not_count(self, one_message):
        one_message.add_labels([given("positive"), given(None, day=2)])
        assert one_message.labels() == []
        one_message.add_labels([given("positive", day=3)])
        assert resolved(one_message) == {"7": "positive"}

    def test_majority_of_people_decides(self, one_message):
        one_message.add_labels([given("positive", who) for who in ("anna", "boris")])
        one_message.add_labels([given("negative", "vera", day=9)])
        [label] = one_message.labels()
        assert label.label == "positive"
        assert sorted(vote.who for vote in label.deciding) == ["anna", "boris"]
        assert len(label.votes) == 3

    def test_tie_has_no_label(self, one_message):
        one_message.add_labels([given("positive"), given("negative", "boris")])
        assert resolved(one_message) == {"7": None}

    def test_ground_truth_comes_before_the_majority(self, one_message):
        one_message.add_labels([given("positive", who) for who in ("anna", "boris", "vera")])
        one_message.add_labels([given("negative", "galina", is_ground_truth=True)])
        [label] = one_message.labels()
        assert label.label == "negative"
        assert [vote.who for vote in label.deciding] == ["galina"]

    def test_label_of_an_earlier_text_is_stored_and_does_not_count(self, one_message):
        one_message.add_labels([given("positive")])
        one_message.add([Message("7", NEW_TEXT, "Соседи")])
        assert one_message.labels() == []
        assert [each.label for each in one_message.label_history("7")] == ["positive"]
        one_message.add_labels([given("negative", day=2)])
        assert resolved(one_message) == {"7": "negative"}
        one_message.add([Message("7", TEXT, "Соседи")])
        assert resolved(one_message) == {"7": "positive"}


class TestAddLabels:
    def test_same_label_again_changes_nothing(self, one_message):
        labels = [given("positive"), given("negative", "boris"), given(None, "vera")]
        assert one_message.add_labels(labels).added == 3
        assert one_message.add_labels(labels) == LabelCounts(known=3)
        assert len(one_message.label_history("7")) == 3

    @pytest.mark.parametrize(
        "other",
        [
            given("negative"),
            given("positive", "boris"),
            given("positive", day=2),
            replace(given("positive"), origin="other"),
        ],
        ids=["label", "who", "time", "origin"],
    )
    def test_label_that_differs_is_another_one(self, one_message, other):
        one_message.add_labels([given("positive")])
        assert one_message.add_labels([other]) == LabelCounts(added=1)

    def test_label_without_a_time_is_the_present_one_of_its_origin(self, one_message):
        before = datetime.now(UTC)
        present = replace(given("positive"), time=None)
        assert one_message.add_labels([present]).added == 1
        [stored] = one_message.label_history("7")
        assert before <= stored.time <= datetime.now(UTC)
        assert one_message.add_labels([present]) == LabelCounts(known=1)
        assert one_message.add_labels([replace(present, label="negative")]).added == 1
        assert one_message.add_labels([present]).added == 1
        assert resolved(one_message) == {"7": "positive"}

    def test_label_of_an_unknown_message_is_counted(self, one_message):
        assert one_message.add_labels([replace(given("positive"), message="8")]) == LabelCounts(
            missing=1
        )

    @pytest.mark.parametrize(
        "bad", [{"who": " "}, {"origin": ""}, {"label": "maybe"}], ids=["who", "origin", "label"]
    )
    def test_bad_label_stores_none_of_them(self, one_message, bad):
        with pytest.raises(ValueError, match="a label"):
            one_message.add_labels([given("positive"), replace(given("positive", "boris"), **bad)])
        assert one_message.label_history("7") == []

    def test_deleted_message_has_no_labels(self, one_message, location):
        one_message.add_labels([given("positive")])
        one_message.delete("7", "anna")
        assert query(location, "SELECT count(*) FROM labels") == [(0,)]
        assert one_message.label_history("7") == []


class TestImportLabels:
    def test_message_without_a_source_is_found_by_identifier_and_text(self, store):
        store.add(chat())
        done = store.import_labels([labelled(Message("2", "Сообщение номер 2"))], "file:l")
        assert (done.labels.added, done.messages_added) == (1, 0)
        assert resolved(store) == {"2": "positive"}

    def test_message_is_found_by_source_and_identifier_in_the_source(self, store):
        store.add(chat())
        other = [replace(each, source="telegram:channel:2") for each in chat()]
        store.add([replace(each, text=f"{each.text}, да", channel="Дачи") for each in other])
        message = Message("2", "Сообщение номер 2, да", source="telegram:channel:2")
        store.import_labels([labelled(message)], "file:l")
        assert resolved(store) == {"Дачи:2": "positive"}

    def test_missing_message_is_added_with_the_source_of_the_file(self, store):
        store.add(chat())
        done = store.import_labels([labelled(Message("2", TEXT))], "file:l")
        assert done.messages_added == 1
        [label] = store.labels()
        assert (label.message.source, label.message.text) == ("file:l", TEXT)
        assert store.get("2").text == "Сообщение номер 2"

    def test_missing_message_is_added_to_the_source_of_the_others(self, store):
        store.add(chat())
        unnamed = [replace(each, source="", channel=None) for each in chat(7)]
        done = store.import_labels([labelled(each) for each in unnamed], "file:l")
        assert (done.labels.added, done.messages_added) == (7, 2)
        assert store.get("6").source == "telegram:channel:1"

    def test_message_with_an_earlier_text_does_not_change(self, store):
        store.add(chat())
        store.add([replace(chat()[0], text="Новый текст")])
        unnamed = [replace(each, source="", channel=None) for each in chat()]
        done = store.import_labels([labelled(each) for each in unnamed], "file:l")
        assert (done.messages_added, done.labels.outdated) == (0, 1)
        assert store.get("0").text == "Новый текст"
        assert resolved(store) == dict.fromkeys("1234", "positive")

    def test_label_of_a_text_that_the_store_never_had_does_not_count(self, store):
        store.add(chat())
        unnamed = [replace(each, source="", channel=None) for each in chat()]
        unnamed[0] = replace(unnamed[0], text="Текст до правки")
        done = store.import_labels([labelled(each) for each in unnamed], "file:l")
        assert (done.messages_added, done.labels.added, done.labels.outdated) == (0, 5, 1)
        assert store.get("0").text == "Сообщение номер 0"
        assert "0" not in resolved(store)

    def test_message_without_an_identifier_is_found_by_its_text(self, store):
        store.add(chat())
        both = [Message("", "Сообщение  номер 3"), Message("", TEXT)]
        for _ in range(2):
            store.import_labels([labelled(each) for each in both], "file:l")
        found = {each.message.id: each.message.text for each in store.labels()}
        assert found.pop("3") == "Сообщение номер 3"
        [(identifier, text)] = found.items()
        assert identifier.startswith("text-") and text == TEXT
        assert store.count() == 6

    def test_message_with_a_source_and_no_identifier_is_added_once(self, store):
        message = Message("", TEXT, "Дачи")
        for _ in range(2):
            store.import_labels([labelled(message)], "file:l")
        [label] = store.labels()
        assert (label.message.channel, store.count()) == ("Дачи", 1)

    def test_two_texts_of_one_identifier_are_two_messages(self, store):
        both = [Message("1", TEXT), Message("1", NEW_TEXT)]
        store.import_labels([labelled(each) for each in both], "file:l")
        assert sorted(each.message.text for each in store.labels()) == sorted([TEXT, NEW_TEXT])

    def test_other_chat_in_a_file_of_the_same_name_is_refused(self, store):
        unnamed = [replace(each, source="", channel=None) for each in chat()]
        store.import_labels([labelled(each) for each in unnamed], "file:l")
        others = [replace(each, text=f"Совсем другое {each.id}") for each in unnamed]
        with pytest.raises(SourceConflict, match="5 of 5 messages have another text in file:l"):
            store.import_labels([labelled(each) for each in others], "file:l")
        assert len(store.labels()) == 5

    @pytest.mark.parametrize("source", ["", "telegram:channel:1"])
    def test_deleted_message_does_not_come_back(self, store, source):
        store.add(chat())
        store.delete("2", "anna")
        message = Message("2", "Сообщение номер 2", source=source)
        done = store.import_labels([labelled(message)], "file:l")
        assert (done.deleted, done.labels.added, done.messages_added) == (1, 0, 0)
        assert store.count() == 4

    def test_import_again_changes_nothing(self, store, location):
        labels = [labelled(each) for each in chat(1200, source=name_key("Соседи"))]
        assert store.import_labels(labels, "file:l").labels.added == 1200
        again = store.import_labels(labels, "file:l")
        assert (again.labels, again.messages_added) == (LabelCounts(known=1200), 0)
        assert query(location, "SELECT count(*) FROM labels") == [(1200,)]

    def test_labels_of_one_store_make_another(self, store, tmp_path):
        store.add(chat())
        first = chat()[0]
        labels = [labelled(first, note="a"), labelled(first, "negative", "boris", day=2)]
        store.import_labels(labels, "file:l")
        edited = replace(first, text=NEW_TEXT)
        store.add([edited])
        store.import_labels(
            [
                labelled(replace(first, text=NEW_TEXT), None, day=3),
                labelled(
                    replace(first, text=NEW_TEXT), "negative", "vera", 4, is_ground_truth=True
                ),
            ],
            "file:l",
        )
        other = MessageStore.open(tmp_path / "other.db")
        exported = store.labelled_messages()
        assert len(exported) == 4
        other.import_labels(exported, "file:other")
        assert other.labelled_messages() == exported
        assert resolved(other) == resolved(store) == {"0": "negative"}
        assert other.get("0").text == NEW_TEXT
        other.close()
