from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import Location, location, new_location, query, store

from feedsieve.message import Message
from feedsieve.store.curation import text_facts
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["location", "new_location", "store"]

NOTICE = "Welcome, {}! Rule 1 of 12: no links."
OFFER = "Сдаётся квартира у моря, {} евро, пишите @the_agent"


def user(number: int) -> str:
    return f"[Somebody {number}](tg://user?id={number})"


def curated(location: Location) -> dict[str, tuple[str, int]]:
    """Return language and copies of each message of the view, by identifier."""
    rows = query(location, "SELECT id, language, copies FROM curated_messages")
    return {identifier: (language, copies) for identifier, language, copies in rows}


class TestTextFacts:
    @pytest.mark.parametrize("text", ["", "Добрый день", "me@example.com", "t.me/@x", "@me"])
    def test_text_without_mention_has_no_template(self, text):
        facts = text_facts(text)
        assert (facts.template, facts.mentioned) == (None, None)

    @pytest.mark.parametrize("mention", ["@somebody", user(1), "[](tg://user?id=5)", "@Кто_то"])
    def test_notices_to_different_users_share_a_template(self, mention):
        facts, other = text_facts(NOTICE.format(mention)), text_facts(NOTICE.format(user(2)))
        assert facts.template == other.template
        assert facts.template is not None
        assert facts.mentioned != other.mentioned

    def test_template_ignores_numbers_and_capitals(self):
        one, other = text_facts("@someone, warning 1 of 3"), text_facts("@SOMEONE, Warning 22 of 3")
        assert one == other

    def test_template_depends_on_words(self):
        one, other = text_facts("@someone, you are warned"), text_facts("@someone, you are banned")
        assert one.template != other.template

    @given(st.text(), st.text())
    def test_equal_fingerprints_have_equal_facts(self, before, after):
        text = f"{before} @somebody {after}"
        spaced = f"\u200b {text}\n"
        assert fingerprint(text) == fingerprint(spaced)
        assert text_facts(text) == text_facts(spaced)

    def test_hostile_text_is_not_slow(self):
        """Backtracking at every bracket would take minutes."""
        for text in ("[" * 10_000, "@" * 10_000, "[](tg://user?id=" * 600, "@a" * 5_000):
            assert text_facts(text).language in ("other", "English")


class TestCurated:
    def test_each_text_is_listed_once_by_its_smallest_identifier(self, store, location):
        noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
        store.add([Message("b", "Добрый день", "chat", noon), Message("c", "Hello there")])
        store.add([Message("a", "Добрый   день"), Message("d", "Доброго дня, є місце")])
        assert curated(location) == {
            "a": ("Russian", 2),
            "c": ("English", 1),
            "d": ("Ukrainian", 1),
        }

    def test_notice_to_three_users_is_left_out(self, store, location):
        store.add([Message("1", NOTICE.format(user(1))), Message("2", NOTICE.format(user(2)))])
        store.add([Message("talk", "Thank you!")])
        assert set(curated(location)) == {"1", "2", "talk"}
        store.add([Message("3", NOTICE.format("@somebody"))])
        assert set(curated(location)) == {"talk"}

    def test_repeated_text_to_one_user_is_kept(self, store, location):
        store.add([Message(str(n), f"{user(7)}, offer {n} is still there") for n in range(5)])
        assert len(curated(location)) == 5

    def test_offers_that_mention_their_agent_are_kept(self, store, location):
        store.add([Message(str(price), OFFER.format(price)) for price in range(900, 1500, 100)])
        assert len(curated(location)) == 6

    def test_replaced_text_is_listed_in_its_current_form(self, store, location):
        store.add([Message("1", "Добрый день")])
        store.add([Message("1", "Good evening to all")])
        assert curated(location) == {"1": ("English", 1)}

    def test_raw_messages_are_not_deleted(self, store, location):
        store.add([Message(str(n), NOTICE.format(user(n))) for n in range(5)])
        assert curated(location) == {}
        assert query(location, "SELECT count(*) FROM messages") == [(5,)]


def test_pandas_reads_the_view(tmp_path):
    database = tmp_path / "store.db"
    store = MessageStore.open(database)
    store.add([Message("1", "Добрый день", "chat", datetime(2024, 5, 1, 12, tzinfo=UTC))])
    store.close()
    frame = pd.read_sql("curated_messages", f"sqlite:///{database}")
    assert frame.dropna(axis="columns").to_dict("records") == [
        {
            "id": "1",
            "text": "Добрый день",
            "channel": "chat",
            "time": pd.Timestamp("2024-05-01 12:00"),
            "source": "name:chat",
            "fingerprint": fingerprint("Добрый день"),
            "language": "Russian",
            "copies": 1,
        }
    ]
