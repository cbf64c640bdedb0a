from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from stores import (
    MODEL,
    SHARED,
    THRESHOLD,
    chat,
    complete,
    content,
    history,
    location,
    locked,
    new_location,
    score_all,
    score_of,
    store,
    write_many,
)

from feedsieve.message import InvalidFile, Message, StoreUnavailable
from feedsieve.sources.readers import read_messages
from feedsieve.store import database
from feedsieve.store.ingest import ImportCounts
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint, storable

__all__ = ["location", "new_location", "store"]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class TestAdd:
    def test_added_message_is_returned(self, store):
        message = Message("7", "To let, +357 00 123456", "flats", NOON)
        assert store.add([message]) == ImportCounts(added=1, changed=0, unchanged=0)
        assert store.get("7") == message
        assert store.get("8") is None
        assert store.count() == 1

    def test_empty_import_adds_nothing(self, store):
        assert store.add([]) == ImportCounts(0, 0, 0)
        assert store.count() == 0

    def test_messages_persist_after_closing(self, store, location):
        store.add(chat(3))
        store.close()
        assert MessageStore.open(location).count() == 3

    def test_second_import_changes_nothing(self, store, location):
        messages = [*chat(2500), Message("x", "text", "flats", NOON), Message("x", "text", "other")]
        assert store.add(messages) == ImportCounts(2502, 0, 0)
        before = content(location)
        assert store.add(iter(messages)) == ImportCounts(0, 0, 2502)
        assert content(location) == before

    def test_posts_are_ordered_by_time_or_else_time_of_import(self, store):
        early = NOON - timedelta(days=1)
        store.add([Message("b", "x", time=NOON), Message("c", "y"), Message("a", "x ", time=early)])
        posts = store.posts()
        assert [post.id for post in posts] == ["a", "b", "c"]
        assert [post.time for post in posts[:2]] == [early, NOON]
        assert abs(posts[2].time - datetime.now(UTC)) < timedelta(minutes=5)
        assert posts[0].fingerprint == posts[1].fingerprint == fingerprint("x")

    def test_times_are_returned_in_utc(self, store):
        east = datetime(2024, 5, 1, 15, tzinfo=timezone(timedelta(hours=3)))
        store.add([Message("1", "a", time=east), Message("2", "b", time=NOON.replace(tzinfo=None))])
        assert [store.get(number).time for number in "12"] == [NOON, NOON]
        assert store.get("1").time.utcoffset() == timedelta(0)

    def test_progress_counts_messages_so_far(self, store):
        counts = []
        store.add(chat(2500), counts.append)
        assert counts == [1000, 2000, 2500]

    @pytest.mark.parametrize("bad", [Message("", "a"), Message("\x00 ", "a"), Message("1", " \n")])
    def test_blank_message_rejects_the_import(self, store, bad):
        with pytest.raises(ValueError, match="needs an identifier and a text"):
            store.add([*chat(1500), bad])
        assert store.count() == 0

    def test_damaged_file_stores_nothing(self, store, tmp_path):
        path = tmp_path / "a.csv"
        rows = "".join(f"{number},text\n" for number in range(1500))
        path.write_text(f"id,text\n{rows}only one field\n")
        with pytest.raises(InvalidFile):
            store.add(read_messages(path))
        assert store.count() == 0
        assert store.add(chat(1)).added == 1


class TestChanges:
    def test_new_text_moves_the_old_one_to_the_history(self, store, location):
        store.add([Message("1", "950 a month"), Message("2", "other")])
        counts = store.add([Message("1", "900 a month"), Message("2", "other")])
        assert counts == ImportCounts(added=0, changed=1, unchanged=1)
        assert store.get("1").text == "900 a month"
        assert history(location) == [("1", "950 a month")]

    def test_history_has_each_earlier_text_once(self, store, location):
        for text in ("a", "b", "a", "b", "c"):
            store.add([Message("1", text)])
        assert history(location) == [("1", "a"), ("1", "b")]
        store.add([Message("1", "a")])
        assert history(location) == [("1", "b"), ("1", "c")]
        store.add([Message("1", "c"), Message("1", "a")])
        assert history(location) == [("1", "b"), ("1", "c")]

    def test_later_of_two_texts_in_one_import_wins(self, store, location):
        messages = [Message("1", "a"), *chat(1500), Message("1", "b")]
        assert store.add(messages) == ImportCounts(1501, 1, 0)
        assert store.get("1").text == "b"
        assert store.add(messages) == ImportCounts(0, 0, 1502)
        assert history(location) == [("1", "a")]

    def test_missing_channel_and_time_are_filled_in_later(self, store):
        store.add([Message("1", "a")])
        assert store.add([Message("1", "a", "flats", NOON)]) == ImportCounts(0, 1, 0)
        assert store.add([Message("1", "a")]) == ImportCounts(0, 0, 1)
        assert store.get("1") == Message("1", "a", "flats", NOON)

    def test_new_text_has_no_score_until_scored(self, store):
        store.add([Message("1", "a")])
        score_all(store, lambda text: 0.5)
        store.add([Message("1", "b")])
        assert score_of(store, MODEL, "1") is None
        assert store.feed(MODEL, 5).items == []
        assert store.unscored(MODEL, 5) == [(fingerprint("b"), "b")]
        store.add([Message("1", "a")])
        assert score_of(store, MODEL, "1") == 0.5


class TestClashes:
    def test_same_identifier_in_two_channels_is_two_messages(self, store, location):
        messages = [Message("1", "a", "flats"), Message("1", "a", "cars")]
        assert store.add(messages).added == 2
        assert store.get("1").channel == "flats"
        assert store.get("cars:1") == Message("cars:1", "a", "cars")
        before = content(location)
        assert store.add(messages) == ImportCounts(0, 0, 2)
        assert content(location) == before

    def test_change_of_a_clashing_message_updates_its_qualified_identifier(self, store, location):
        store.add([Message("1", "a", "flats"), Message("1", "b", "cars")])
        assert store.add([Message("1", "c", "cars")]) == ImportCounts(0, 1, 0)
        assert store.get("cars:1").text == "c"
        assert history(location) == [("cars:1", "b")]

    def test_text_decides_identity_without_a_channel(self, store):
        store.add([Message("1", "a", "flats"), Message("2", "b", "flats")])
        assert store.add([Message("1", "a"), Message("2", "other")]) == ImportCounts(1, 0, 1)
        assert store.get("2").text == "b"
        assert store.get(":2") == Message(":2", "other")

    @given(
        st.lists(
            st.builds(
                Message,
                id=st.sampled_from(["1", "2", "3"]),
                text=st.sampled_from("ab"),
                channel=st.sampled_from([None, "flats", "cars"]),
            ),
            max_size=9,
            unique_by=lambda message: (message.id, message.channel),
        )
    )
    @settings(SHARED, max_examples=30)
    def test_any_import_repeated_changes_nothing(self, new_location, messages):
        location = new_location()
        store = MessageStore.open(location)
        counts = store.add(messages)
        assert counts.added == store.count()
        before = content(location)
        assert store.add(messages) == ImportCounts(0, 0, len(messages))
        assert content(location) == before
        kept = [store.get(message.id).text for message in messages]
        assert {message.text for message in messages} >= set(kept)
        store.close()


HOSTILE = ["'; DROP TABLE messages; --", '" OR 1=1 --', "%", "_", "?", ":id", "\\", "\u202e", "é"]


class TestHostileStrings:
    @pytest.mark.parametrize("string", HOSTILE)
    def test_hostile_strings_are_stored_unchanged(self, store, string):
        store.add([Message(string, string, string), Message("1", "a")])
        assert store.get(string) == Message(string, string, string)
        score_all(store, lambda text: 0.5, model=string)
        assert score_of(store, string, string) == 0.5
        assert len(store.feed(string, 5).items) == 2
        assert store.shown_model(string) == string
        assert store.count() == 2

    def test_lone_surrogates_and_nul_are_replaced(self, store):
        store.add([Message("\ud800\x00i", "a\udfffb\x00", "c\ud800")])
        assert store.get("\ufffdi") == Message("\ufffdi", "a\ufffdb", "c\ufffd")
        assert store.get("\ud800i\x00") == store.get("\ufffdi")
        score_all(store, lambda text: 0.5)
        assert score_of(store, MODEL, "\ud800i") == 0.5

    @given(*[st.text(st.characters(exclude_categories=()), max_size=30)] * 2)
    @settings(SHARED, max_examples=60)
    def test_any_string_is_stored_or_rejected(self, any_store, identifier, text):
        try:
            [stored] = any_store.save_messages([Message(identifier, text)])
        except ValueError:
            assert not storable(identifier).strip() or not storable(text).strip()
            return
        assert any_store.get(stored.id).text == storable(text)


@pytest.fixture(scope="module")
def any_store(new_location) -> Iterator[MessageStore]:
    store = MessageStore.open(new_location())
    yield store
    store.close()


class TestScores:
    def test_equal_texts_are_scored_once(self, store):
        store.add([Message("1", "To let"), Message("2", " To\nlet "), Message("3", "Wanted")])
        missing = store.unscored(MODEL, 10)
        assert missing == sorted((fingerprint(text), text) for text in ("To let", "Wanted"))
        store.save_scores(MODEL, [(fingerprint("To let"), 0.75)])
        assert score_of(store, MODEL, "1") == score_of(store, MODEL, "2") == 0.75
        assert score_of(store, MODEL, "3") is None
        assert store.unscored(MODEL, 10) == [(fingerprint("Wanted"), "Wanted")]

    def test_first_score_of_a_model_is_never_replaced(self, store):
        store.add([Message("1", "a")])
        store.save_scores(MODEL, [(fingerprint("a"), 0.25)])
        store.save_scores(MODEL, [(fingerprint("a"), 0.5), (fingerprint("b"), 1)])
        store.save_scores("classifier:two", [(fingerprint("a"), 0.75)])
        assert score_of(store, MODEL, "1") == 0.25
        assert score_of(store, "classifier:two", "1") == 0.75
        assert score_of(store, "classifier:three", "1") is None

    def test_scores_round_trip_exactly(self, store):
        store.add(chat(3))
        scores = [0.1 + 0.2, 5e-324, 1.0]
        store.save_scores(
            MODEL, [(fingerprint(m.text), s) for m, s in zip(chat(3), scores, strict=True)]
        )
        assert [score_of(store, MODEL, message.id) for message in chat(3)] == scores

    @pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
    def test_score_out_of_range_stores_nothing(self, store, score):
        store.add(chat(2))
        prints = [fingerprint(message.text) for message in chat(2)]
        with pytest.raises(ValueError, match="is not from 0 to 1"):
            store.save_scores(MODEL, list(zip(prints, [0.5, score], strict=True)))
        assert len(store.unscored(MODEL, 10)) == 2

    def test_unscored_pages_cover_the_store_once(self, store):
        store.add(chat(25))
        seen, after = [], ""
        while (part := store.unscored(MODEL, 10, after)) and len(seen) < 100:
            seen += part
            after = part[-1][0]
        assert seen == sorted((fingerprint(m.text), m.text) for m in chat(25))

    def test_scoring_resumes_where_it_stopped(self, store, location):
        store.add(chat(25))
        first = store.unscored(MODEL, 10)
        store.save_scores(MODEL, [(print_, 0.5) for print_, _ in first])
        store.close()
        again = MessageStore.open(location)
        rest = again.unscored(MODEL, 100)
        assert len(rest) == 15 and not set(rest) & set(first)
        assert again.unscored(MODEL, 100, after=rest[-1][0]) == []

    @pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan")])
    def test_threshold_out_of_range_is_rejected(self, store, threshold):
        with pytest.raises(ValueError, match="is not from 0 to 1"):
            store.start_model(MODEL, threshold)


class TestShownModel:
    def test_current_model_is_shown_if_none_was_complete(self, store):
        assert store.shown_model("two") == "two"
        score_all(store, lambda text: 0.5, model="one")
        assert store.shown_model("two") == "two"

    def test_old_model_is_shown_until_the_new_one_is_complete(self, store):
        store.add(chat(1))
        complete(store, "one")
        score_all(store, lambda text: 0.5, model="two")
        assert store.shown_model("two") == "one"
        store.mark_complete("two")
        assert store.shown_model("two") == "two"

    def test_model_stays_shown_after_new_messages(self, store):
        complete(store, "one")
        store.add(chat(5))
        assert store.shown_model("one") == "one"

    def test_model_that_was_complete_last_is_shown(self, store):
        for model in ("one", "two", "one"):
            complete(store, model)
        assert store.shown_model("three") == "one"
        assert store.shown_model("two") == "two"


class TestVersion:
    def test_version_changes_only_with_writes_of_any_store(self, store, location):
        before = store.version()
        assert store.version() == before
        store.count()
        assert store.version() == before
        other = MessageStore.open(location)
        other.add(chat(3))
        added = store.version()
        assert added != before
        store.start_model(MODEL, THRESHOLD)
        assert store.version() not in (before, added)
        other.close()


class TestWritingAtOnce:
    def test_threads_open_one_store(self, location):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write_many, [location] * 4, range(4)))
        assert MessageStore.open(location).count() == 5 * 200

    def test_threads_share_one_store(self, store):
        def use(thread: int) -> None:
            for start in range(0, 100, 10):
                store.add(chat(10, 1000 * thread + start))
                score_all(store, lambda text: 0.5)
                store.feed(MODEL, 10)
                store.sample(5)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, range(4)))
        assert store.count() == 400
        assert store.unscored(MODEL, 1) == []

    def test_readers_do_not_wait_for_a_writer(self, store, location):
        store.add(chat(3))
        with locked(location):
            assert store.count() == 3
            assert len(store.sample(2)) == 2
            assert store.feed(MODEL, 5).items == []
            other = MessageStore.open(location)
            assert other.count() == 3

    def test_writer_locked_out_too_long_fails(self, location, monkeypatch):
        monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
        store = MessageStore.open(location)
        with locked(location):
            for write in (
                lambda: store.add(chat(1)),
                lambda: store.save_scores(MODEL, [(fingerprint("a"), 0.5)]),
                lambda: store.start_model(MODEL, THRESHOLD),
                lambda: store.mark_complete(MODEL),
            ):
                with pytest.raises(StoreUnavailable, match="database is locked|lock timeout"):
                    write()
        assert store.add(chat(1)).added == 1


def test_sequential_readers_share_one_sqlite_connection(tmp_path):
    store, used = MessageStore.open(tmp_path / "store.db"), set()

    def note(connection: Any, *_: object) -> None:
        used.add(id(connection))

    event.listen(store._engine, "checkout", note)
    with ExitStack() as burst:
        for _ in range(4):
            burst.enter_context(store._transaction())
    assert len(used) == 4
    used.clear()
    for _ in range(8):
        store.count()
    assert len(used) == 1
    store.close()


def test_closing_leaves_one_file(store, location):
    store.add(chat(3))
    store.close()
    assert list(location.parent.iterdir()) == [location]
