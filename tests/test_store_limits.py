"""Limits of other systems that a store keeps to; test_postgres.py runs these in PostgreSQL too."""

import random

from stores import location, new_location, store

from feedsieve.message import LONGEST_NAME, Message
from feedsieve.store import database
from feedsieve.store.curation import text_facts
from feedsieve.store.ingest import ImportCounts
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]


class TestLimits:
    def test_long_identifiers_are_stored_and_known_again(self, store):
        # Random, since PostgreSQL compresses what its indexes would not take.
        long, other = (random.Random(seed).randbytes(4000).hex() for seed in (1, 2))
        messages = [
            Message(f"https://host/{long}", "one", long, source=f"name:{long}"),
            Message(f"https://host/{long}{other}", "two", long, source=f"name:{long}"),
            Message("x" * 3000, "three", other, reply_to=f"https://host/{long}"),
        ]
        assert store.add(messages) == ImportCounts(3, 0, 0)
        assert store.add(messages) == ImportCounts(0, 0, 3)
        by_text = {one.text: one for one in store.read_all()}
        first, third = by_text["one"], by_text["three"]
        assert third.reply_to == first.id
        assert max(len(one.id.encode()) for one in store.read_all()) <= LONGEST_NAME
        assert store.delete(first.id, "nobody")
        assert store.add(messages) == ImportCounts(0, 0, 2, deleted=1)

    def test_facts_are_computed_before_others_have_to_wait(self, store, location, monkeypatch):
        def facts(text):
            if text == "Сдаётся дом":
                MessageStore.open(location).add([Message("other", "Another writer")])
            return text_facts(text)

        monkeypatch.setattr("feedsieve.store.curation.text_facts", facts)
        monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
        store.save_messages([Message("1", "Сдаётся дом")])
        assert store.count() == 2
