"""API keys in the store: hashed, named, revoked; test_postgres.py runs these in PostgreSQL too."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from stores import location, new_location, query, store

from feedsieve.store import database
from feedsieve.store.keys import KEY_PATTERN, KeyNameTaken, KeyNotFound, LastKey, hash_key
from feedsieve.store.store import MessageStore

__all__ = ["location", "new_location", "store"]


class TestKeys:
    def test_key_is_random_and_only_its_hash_is_stored(self, store, location):
        keys = [store.add_key(f"key{number}", ["write"]) for number in range(20)]
        assert len(set(keys)) == 20
        assert all(re.fullmatch(KEY_PATTERN, key) for key in keys)
        rows = str(query(location, "SELECT * FROM api_keys"))
        for key in keys:
            assert key not in rows and key.removeprefix("fs_") not in rows
            assert hash_key(key) in rows

    def test_key_is_read_as_it_was_added(self, store):
        before = datetime.now(UTC)
        key = store.add_key("bot", ["write", "read"], 60)
        [found] = store.valid_keys()
        assert (found.name, found.hash) == ("bot", hash_key(key))
        assert found.scopes == {"read", "write"}
        assert found.requests_per_minute == 60
        assert before <= found.created_at <= datetime.now(UTC)
        assert found.last_used_at is None and found.revoked_at is None

    def test_last_key_stays_however_many_are_revoked_at_once(self, store):
        for number in range(8):
            store.add_key(f"key{number}", ["write"])

        def revoke(number):
            try:
                store.revoke_key(f"key{number}", may_be_last=False)
            except LastKey:
                return 1
            return 0

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(revoke, range(8))) == 1
        assert len(store.valid_keys()) == 1

    def test_admin_allows_every_scope_and_others_their_own(self, store):
        store.add_key("admin", ["admin"])
        store.add_key("reader", ["read"])
        admin, reader = store.valid_keys()
        assert all(admin.allows(scope) for scope in ("read", "score", "write", "admin"))
        assert reader.allows("read")
        assert not any(reader.allows(scope) for scope in ("score", "write", "admin"))

    @pytest.mark.parametrize("scopes", [[], ["delete"], ["read", "delete"]])
    def test_unknown_scopes_are_refused(self, store, scopes):
        with pytest.raises(ValueError, match="read, score, write, admin"):
            store.add_key("bot", scopes)
        assert store.api_keys() == []

    def test_name_is_taken_until_its_key_is_revoked(self, store):
        first = store.add_key("bot", ["write"])
        with pytest.raises(KeyNameTaken, match="'bot'"):
            store.add_key("bot", ["read"])
        store.revoke_key("bot")
        second = store.add_key("bot", ["read"])
        assert [key.hash for key in store.valid_keys()] == [hash_key(second)]
        assert [key.hash for key in store.api_keys()] == [hash_key(first), hash_key(second)]
        store.revoke_key("bot")
        assert store.valid_keys() == []
        assert len({key.number for key in store.api_keys()}) == 2

    def test_database_refuses_two_valid_keys_of_one_name(self, store, location):
        store.add_key("bot", ["write"])
        row = "SELECT name, 'x', scopes, created_at FROM api_keys"
        with pytest.raises(Exception, match=r"(?i)unique"):
            query(location, f"INSERT INTO api_keys (name, hash, scopes, created_at) {row}")

    def test_revoking_nothing_is_refused(self, store):
        with pytest.raises(KeyNotFound, match="'bot'"):
            store.revoke_key("bot")
        store.add_key("bot", ["write"])
        store.revoke_key("bot")
        with pytest.raises(KeyNotFound, match="'bot'"):
            store.revoke_key("bot")

    def test_keys_added_at_once_have_different_names(self, store):
        def add(number):
            try:
                return store.add_key("bot", ["write"])
            except KeyNameTaken:
                return None

        with ThreadPoolExecutor(8) as threads:
            added = [key for key in threads.map(add, range(16)) if key]
        assert len(added) == 1 == len(store.valid_keys())

    def test_use_is_recorded_and_never_set_back(self, store):
        for name in ("one", "two"):
            store.add_key(name, ["write"])
        one, two = (key.number for key in store.valid_keys())
        now = datetime.now(UTC)
        store.record_use({one: now, two: now})
        store.record_use({one: now - timedelta(hours=1), two: now + timedelta(hours=1)})
        store.record_use({})
        times = [key.last_used_at for key in store.valid_keys()]
        assert times == [now, now + timedelta(hours=1)]


class TestEarlierStore:
    def test_store_without_keys_gets_their_table(self, location, store):
        """As a version before keys left it, with its view."""
        store.close()
        url, _dump = database.find_database(location, None)
        engine = database.create_engine(url)
        with engine.begin() as connection:
            newer = ("deployments", "deployment_outcomes")
            newer += ("shadows", "shadow_outcomes", "shadow_pairs")
            for table in ("api_keys", *newer):
                connection.exec_driver_sql(f"DROP TABLE {table}")
            connection.exec_driver_sql("UPDATE feedsieve_revision SET version_num = '2'")
        engine.dispose()
        opened = MessageStore.open(location)
        assert opened.api_keys() == []
        opened.add_key("bot", ["write"])
        assert query(location, "SELECT count(*) FROM curated_messages") == [(0,)]
        opened.close()
