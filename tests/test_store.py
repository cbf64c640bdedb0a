import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import largest_file
from sqlalchemy import event

from feedsieve import database
from feedsieve.readers import UnreadableFile, read_messages
from feedsieve.settings import Settings
from feedsieve.store import Cursor, ImportCounts, Message, MessageStore, StoreUnavailable
from feedsieve.text import fingerprint, storable

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
MODEL = "classifier:one"
THRESHOLD = 0.5

Location = str | Path
"""A file or a URL. The tests that ask for a `location` or a `store` run in test_postgres.py too."""

SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Lets test_postgres.py run the same properties in one session."""


@pytest.fixture(scope="session")
def new_location(tmp_path_factory) -> Callable[[], Location]:
    """What gives the location of a store that is not there yet."""
    return lambda: tmp_path_factory.mktemp("store") / "store.db"


@pytest.fixture
def location(new_location) -> Location:
    return new_location()


@pytest.fixture
def store(location) -> Iterator[MessageStore]:
    store = MessageStore.open(location)
    yield store
    store.close()


def query(location: Location, statement: str, *values: object) -> list[Any]:
    connect: Any = sqlite3.connect if isinstance(location, Path) else psycopg.connect
    with closing(connect(location)) as connection:
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
    return rows


def history(location: Location) -> list[tuple[str, str]]:
    return query(location, "SELECT id, text FROM message_history ORDER BY id, text")


def content(location: Location) -> list[Any]:
    """Return all that an import writes."""
    tables = ("messages", "message_history", "texts", "dump_extents")
    return [query(location, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def chat(count: int, start: int = 0) -> list[Message]:
    return [Message(f"m{number:05}", f"text {number}") for number in range(start, start + count)]


def score_all(store: MessageStore, score: Callable[[str], float], model: str = MODEL) -> None:
    store.start_model(model, THRESHOLD)
    missing = store.unscored(model, 10_000)
    store.save_scores(model, [(print_, score(text)) for print_, text in missing])


def complete(store: MessageStore, model: str) -> None:
    store.start_model(model, THRESHOLD)
    store.mark_complete(model)


def pages(store: MessageStore, limit: int, model: str = MODEL) -> list[Any]:
    page = store.feed(model, limit)
    found = [page]
    while page.next and len(found) < 100:
        page = store.feed(model, limit, Cursor.decode(page.next.encode()))
        found.append(page)
    return found


def score_of(store, model, identifier):
    [found] = store.find(model, [identifier]).values()
    return found.score


class TestAdd:
    def test_what_was_added_is_found(self, store):
        message = Message("7", "To let, +357 00 123456", "flats", NOON)
        assert store.add([message]) == ImportCounts(added=1, changed=0, unchanged=0)
        assert store.get("7") == message
        assert store.get("8") is None
        assert store.count() == 1

    def test_nothing(self, store):
        assert store.add([]) == ImportCounts(0, 0, 0)
        assert store.count() == 0

    def test_it_is_still_there_after_closing(self, store, location):
        store.add(chat(3))
        store.close()
        assert MessageStore.open(location).count() == 3

    def test_twice_changes_nothing(self, store, location):
        messages = [*chat(2500), Message("x", "text", "flats", NOON), Message("x", "text", "other")]
        assert store.add(messages) == ImportCounts(2502, 0, 0)
        before = content(location)
        assert store.add(iter(messages)) == ImportCounts(0, 0, 2502)
        assert content(location) == before

    def test_posts_come_by_their_time_or_when_they_came_in(self, store):
        early = NOON - timedelta(days=1)
        store.add([Message("b", "x", time=NOON), Message("c", "y"), Message("a", "x ", time=early)])
        posts = store.posts()
        assert [post.id for post in posts] == ["a", "b", "c"]
        assert [post.time for post in posts[:2]] == [early, NOON]
        assert abs(posts[2].time - datetime.now(UTC)) < timedelta(minutes=5)
        assert posts[0].fingerprint == posts[1].fingerprint == fingerprint("x")

    def test_times_are_kept_in_utc(self, store):
        east = datetime(2024, 5, 1, 15, tzinfo=timezone(timedelta(hours=3)))
        store.add([Message("1", "a", time=east), Message("2", "b", time=NOON.replace(tzinfo=None))])
        assert [store.get(number).time for number in "12"] == [NOON, NOON]
        assert store.get("1").time.utcoffset() == timedelta(0)

    def test_progress_is_told(self, store):
        told = []
        store.add(chat(2500), told.append)
        assert told == [1000, 2000, 2500]

    @pytest.mark.parametrize("bad", [Message("", "a"), Message("\x00 ", "a"), Message("1", " \n")])
    def test_a_blank_message_stores_none(self, store, bad):
        with pytest.raises(ValueError, match="needs an identifier and a text"):
            store.add([*chat(1500), bad])
        assert store.count() == 0

    def test_a_file_that_breaks_off_stores_none(self, store, tmp_path):
        path = tmp_path / "a.csv"
        rows = "".join(f"{number},text\n" for number in range(1500))
        path.write_text(f"id,text\n{rows}only one field\n")
        with pytest.raises(UnreadableFile):
            store.add(read_messages(path))
        assert store.count() == 0
        assert store.add(chat(1)).added == 1


class TestChanges:
    def test_a_new_text_replaces_the_old_one_which_is_remembered(self, store, location):
        store.add([Message("1", "950 a month"), Message("2", "other")])
        counts = store.add([Message("1", "900 a month"), Message("2", "other")])
        assert counts == ImportCounts(added=0, changed=1, unchanged=1)
        assert store.get("1").text == "900 a month"
        assert history(location) == [("1", "950 a month")]

    def test_back_and_forth_is_remembered_once(self, store, location):
        for text in ("a", "b", "a", "b", "c"):
            store.add([Message("1", text)])
        assert history(location) == [("1", "a"), ("1", "b")]
        store.add([Message("1", "a")])
        assert history(location) == [("1", "b"), ("1", "c")]
        store.add([Message("1", "c"), Message("1", "a")])
        assert history(location) == [("1", "b"), ("1", "c")]

    def test_the_later_of_two_counts(self, store, location):
        messages = [Message("1", "a"), *chat(1500), Message("1", "b")]
        assert store.add(messages) == ImportCounts(1501, 1, 0)
        assert store.get("1").text == "b"
        assert store.add(messages) == ImportCounts(0, 0, 1502)
        assert history(location) == [("1", "a")]

    def test_channel_and_time_may_come_later_and_stay(self, store):
        store.add([Message("1", "a")])
        assert store.add([Message("1", "a", "flats", NOON)]) == ImportCounts(0, 1, 0)
        assert store.add([Message("1", "a")]) == ImportCounts(0, 0, 1)
        assert store.get("1") == Message("1", "a", "flats", NOON)

    def test_a_new_text_has_no_score_until_it_is_scored(self, store):
        store.add([Message("1", "a")])
        score_all(store, lambda text: 0.5)
        store.add([Message("1", "b")])
        assert score_of(store, MODEL, "1") is None
        assert store.feed(MODEL, 5).items == []
        assert store.unscored(MODEL, 5) == [(fingerprint("b"), "b")]
        store.add([Message("1", "a")])
        assert score_of(store, MODEL, "1") == 0.5


class TestClashes:
    def test_the_same_identifier_in_two_channels(self, store, location):
        messages = [Message("1", "a", "flats"), Message("1", "a", "cars")]
        assert store.add(messages).added == 2
        assert store.get("1").channel == "flats"
        assert store.get("cars:1") == Message("cars:1", "a", "cars")
        before = content(location)
        assert store.add(messages) == ImportCounts(0, 0, 2)
        assert content(location) == before

    def test_a_clashing_message_that_changes(self, store, location):
        store.add([Message("1", "a", "flats"), Message("1", "b", "cars")])
        assert store.add([Message("1", "c", "cars")]) == ImportCounts(0, 1, 0)
        assert store.get("cars:1").text == "c"
        assert history(location) == [("cars:1", "b")]

    def test_without_a_channel_the_text_decides(self, store):
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
    def test_any_import_twice_changes_nothing(self, new_location, messages):
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
    def test_they_are_kept_as_they_are(self, store, string):
        store.add([Message(string, string, string), Message("1", "a")])
        assert store.get(string) == Message(string, string, string)
        score_all(store, lambda text: 0.5, model=string)
        assert score_of(store, string, string) == 0.5
        assert len(store.feed(string, 5).items) == 2
        assert store.shown_model(string) == string
        assert store.count() == 2

    def test_lone_surrogates_and_null(self, store):
        store.add([Message("\ud800\x00i", "a\udfffb\x00", "c\ud800")])
        assert store.get("\ufffdi") == Message("\ufffdi", "a\ufffdb", "c\ufffd")
        assert store.get("\ud800i\x00") == store.get("\ufffdi")
        score_all(store, lambda text: 0.5)
        assert score_of(store, MODEL, "\ud800i") == 0.5

    @given(*[st.text(st.characters(exclude_categories=()), max_size=30)] * 2)
    @settings(SHARED, max_examples=60)
    def test_any_string_is_kept_or_refused(self, any_store, identifier, text):
        try:
            any_store.add([Message(identifier, text)])
        except ValueError:
            assert not storable(identifier).strip() or not storable(text).strip()
            return
        assert any_store.get(storable(identifier).strip()).text == storable(text)


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

    def test_the_first_score_of_a_model_stays(self, store):
        store.add([Message("1", "a")])
        store.save_scores(MODEL, [(fingerprint("a"), 0.25)])
        store.save_scores(MODEL, [(fingerprint("a"), 0.5), (fingerprint("b"), 1)])
        store.save_scores("classifier:two", [(fingerprint("a"), 0.75)])
        assert score_of(store, MODEL, "1") == 0.25
        assert score_of(store, "classifier:two", "1") == 0.75
        assert score_of(store, "classifier:three", "1") is None

    def test_a_score_comes_back_to_the_bit(self, store):
        store.add(chat(3))
        scores = [0.1 + 0.2, 5e-324, 1.0]
        store.save_scores(
            MODEL, [(fingerprint(m.text), s) for m, s in zip(chat(3), scores, strict=True)]
        )
        assert [score_of(store, MODEL, message.id) for message in chat(3)] == scores

    @pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
    def test_a_score_out_of_range_stores_none(self, store, score):
        store.add(chat(2))
        prints = [fingerprint(message.text) for message in chat(2)]
        with pytest.raises(ValueError, match="is not from 0 to 1"):
            store.save_scores(MODEL, list(zip(prints, [0.5, score], strict=True)))
        assert len(store.unscored(MODEL, 10)) == 2

    def test_once_through_the_store_in_parts(self, store):
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
    def test_a_threshold_out_of_range_is_refused(self, store, threshold):
        with pytest.raises(ValueError, match="is not from 0 to 1"):
            store.start_model(MODEL, threshold)


class TestShownModel:
    def test_the_current_one_if_none_was_complete(self, store):
        assert store.shown_model("two") == "two"
        score_all(store, lambda text: 0.5, model="one")
        assert store.shown_model("two") == "two"

    def test_the_old_one_while_the_new_one_scores(self, store):
        store.add(chat(1))
        complete(store, "one")
        score_all(store, lambda text: 0.5, model="two")
        assert store.shown_model("two") == "one"
        store.mark_complete("two")
        assert store.shown_model("two") == "two"

    def test_complete_once_is_enough(self, store):
        complete(store, "one")
        store.add(chat(5))
        assert store.shown_model("one") == "one"

    def test_the_one_that_was_complete_last(self, store):
        for model in ("one", "two", "one"):
            complete(store, model)
        assert store.shown_model("three") == "one"
        assert store.shown_model("two") == "two"


class TestFeed:
    def test_each_model_decides_by_its_own_threshold(self, store):
        store.add([Message("low", "4"), Message("at", "5"), Message("high", "6")])
        for model, threshold in (("strict", 0.6), ("mild", 0.5)):
            store.start_model(model, threshold)
            store.start_model(model, 0.0)  # known already: nothing changes
            score_all(store, lambda text: int(text) / 10, model)
        decisions = {
            model: [item.id for item in store.feed(model, 9).items if item.is_positive]
            for model in ("strict", "mild")
        }
        assert decisions == {"strict": ["high"], "mild": ["high", "at"]}

    def test_a_page_names_the_model_that_ranked_it(self, store):
        store.add(chat(3))
        score_all(store, lambda text: 0.5)
        page = store.feed(MODEL, 2)
        assert page.model == MODEL
        assert store.feed("another", 2, page.next).model == MODEL
        assert store.feed("unknown", 2).items == []

    def test_by_falling_score(self, store):
        store.add([Message("low", "1"), Message("high", "9"), Message("middle", "5")])
        score_all(store, lambda text: int(text) / 10)
        page = store.feed(MODEL, 10)
        assert [(item.id, item.score, item.rank) for item in page.items] == [
            ("high", 0.9, 1),
            ("middle", 0.5, 2),
            ("low", 0.1, 3),
        ]
        assert page.next is None

    def test_copies_are_one_item_with_the_smallest_identifier(self, store):
        store.add([Message("b", "To let"), Message("a", "To  let"), Message("c", "Wanted")])
        score_all(store, lambda text: 0.9 if "let" in text else 0.1)
        items = store.feed(MODEL, 10).items
        assert [(item.id, item.text, item.copies) for item in items] == [
            ("a", "To  let", 2),
            ("c", "Wanted", 1),
        ]

    @pytest.mark.parametrize("limit", [1, 3, 7, 30, 100])
    def test_pages_are_the_feed_cut(self, store, limit):
        store.add(chat(30))
        store.add([Message(f"copy {number}", f"text {number}") for number in range(10)])
        score_all(store, lambda text: int(text[-1]) % 3 / 3)  # ties of ten
        whole = store.feed(MODEL, 1000).items
        found = pages(store, limit)
        assert [item for page in found for item in page.items] == whole
        assert [item.rank for item in whole] == list(range(1, 31))
        assert all(len(page.items) == limit for page in found[:-1])
        order = [(-item.score, fingerprint(item.text)) for item in whole]
        assert order == sorted(order)

    @given(
        scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=12, max_size=12),
        limit=st.integers(1, 5),
        split=st.integers(1, 11),
    )
    @settings(SHARED, max_examples=40)
    def test_no_item_twice_whatever_comes_in_between(self, twelve, scores, limit, split):
        model = repr((scores, limit, split))
        scored = list(zip(twelve.unscored(model, 12), scores, strict=True))
        scored = [(print_, score) for (print_, _), score in scored]
        twelve.start_model(model, THRESHOLD)
        twelve.save_scores(model, scored[:split])
        page = twelve.feed(model, limit)
        seen = list(page.items)
        twelve.save_scores(model, scored[split:])
        while page.next and len(seen) < 100:
            page = twelve.feed("ignored", limit, page.next)
            seen += page.items
        assert len({item.id for item in seen}) == len(seen)
        early = {print_ for print_, _ in scored[:split]}
        assert early <= {fingerprint(item.text) for item in seen}

    def test_the_next_page_is_of_the_model_of_the_first(self, store):
        store.add(chat(6))
        score_all(store, lambda text: int(text[-1]) / 10, model="one")
        score_all(store, lambda text: 1 - int(text[-1]) / 10, model="two")
        first = store.feed("one", 3)
        rest = store.feed("two", 10, first.next)
        assert [item.text for item in rest.items] == ["text 2", "text 1", "text 0"]

    def test_a_cursor_from_elsewhere_finds_nothing(self, store):
        store.add(chat(3))
        score_all(store, lambda text: 0.5)
        assert store.feed(MODEL, 3, Cursor("other", 0.9, "0" * 32, 4)).items == []
        assert store.feed(MODEL, 3, Cursor(MODEL, -1.0, "0" * 32, 4)).items == []

    def test_an_empty_store(self, store):
        page = store.feed(MODEL, 3)
        assert (page.items, page.next) == ([], None)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_bad_limits(self, store, limit):
        with pytest.raises(ValueError, match="at least 1"):
            store.feed(MODEL, limit)


@pytest.fixture(scope="module")
def twelve(new_location) -> Iterator[MessageStore]:
    store = MessageStore.open(new_location())
    store.add(chat(12))
    yield store
    store.close()


class TestSample:
    @pytest.mark.parametrize("limit", [0, 1, 5, 49, 50, 51, 1000])
    def test_as_many_as_asked_for_and_none_twice(self, store, limit):
        store.add(chat(50))
        identifiers = store.sample(limit)
        assert len(identifiers) == min(limit, 50)
        assert len(set(identifiers)) == len(identifiers)
        assert set(identifiers) <= {message.id for message in chat(50)}

    def test_every_message_has_its_turn(self, store):
        store.add(chat(50))
        drawn = [identifier for _ in range(300) for identifier in store.sample(3)]
        assert set(drawn) == {message.id for message in chat(50)}
        assert max(map(drawn.count, drawn)) < 50  # 18 expected

    def test_all_come_in_random_order(self, store):
        store.add(chat(50))
        assert store.sample(50) != store.sample(50)

    def test_an_empty_store(self, store):
        assert store.sample(3) == []

    def test_a_negative_limit(self, store):
        with pytest.raises(ValueError, match="must not be negative"):
            store.sample(-1)


def make_dump(path: Path, count: int = 3) -> Path:
    query(path, "CREATE TABLE raw_rent_messages (msg_id INTEGER PRIMARY KEY, msg TEXT)")
    for number in range(count):
        query(path, "INSERT INTO raw_rent_messages VALUES (?, ?)", number, f"text {number}")
    return path


@pytest.fixture
def read_only_dump(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "kept"
    folder.mkdir()
    path = make_dump(folder / "chat.db")
    path.chmod(0o444)
    folder.chmod(0o555)
    yield path
    folder.chmod(0o755)


def write_many(location: Location, writer: int) -> None:
    """Add messages, half of them every writer's, and score what there is; what a process does."""
    store = MessageStore.open(location)
    for start in range(0, 200, 20):
        added = [*chat(20, start), *chat(20, 1000 * (writer + 1) + start)]
        store.add(reversed(added) if writer % 2 else added)
        score_all(store, lambda text: 0.5)
    store.close()


class TestDump:
    def test_its_messages_are_there(self, tmp_path):
        store = MessageStore.open(make_dump(tmp_path / "chat.db"))
        assert store.count() == 3
        assert store.get("1") == Message("1", "text 1")

    def test_the_raw_table_stays_as_it_is(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        before = query(path, "SELECT rowid, * FROM raw_rent_messages")
        MessageStore.open(path).add([Message("1", "another")])
        assert query(path, "SELECT rowid, * FROM raw_rent_messages") == before

    def test_again_changes_nothing(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        before = content(path)
        told = []
        MessageStore.open(path, progress=told.append).close()
        assert content(path) == before
        assert told == []

    def test_new_rows_are_taken_at_the_next_opening(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        query(path, "INSERT INTO raw_rent_messages VALUES (10, 'new'), (11, '')")
        told = []
        store = MessageStore.open(path, progress=told.append)
        assert store.get("10").text == "new"
        assert store.count() == 4
        assert told == [1]

    def test_a_new_text_and_a_row_put_in_between_are_noticed(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        query(path, "INSERT INTO raw_rent_messages VALUES (10, 'last')")
        MessageStore.open(path).close()
        query(path, "UPDATE raw_rent_messages SET msg = 'longer than before' WHERE msg_id = 1")
        query(path, "INSERT INTO raw_rent_messages VALUES (5, 'between')")
        store = MessageStore.open(path)
        assert store.get("1").text == "longer than before"
        assert store.get("5").text == "between"
        assert history(path) == [("1", "text 1")]

    def test_what_is_gone_from_the_dump_stays(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        MessageStore.open(path).close()
        query(path, "DELETE FROM raw_rent_messages WHERE msg_id < 2")
        assert MessageStore.open(path).count() == 3

    def test_both_tables_with_the_same_identifiers(self, tmp_path):
        path = make_dump(tmp_path / "chat.db")
        query(path, "CREATE TABLE tg_messages (id, msg, channel, msg_hash)")
        query(path, "INSERT INTO tg_messages VALUES (1, 'text 1', 'flats', '')")
        query(path, "INSERT INTO tg_messages VALUES (2, 'b', 'cars', '')")
        store = MessageStore.open(path)
        assert store.get("1") == Message("1", "text 1", "flats")
        assert store.get("2").text == "text 2"
        assert store.get("cars:2").text == "b"

    def test_a_read_only_dump_is_not_touched(self, read_only_dump, tmp_path, caplog):
        before = read_only_dump.read_bytes()
        store = MessageStore.open(read_only_dump, state_folder=tmp_path / "state")
        assert store.count() == 3
        store.add(chat(1))
        assert read_only_dump.read_bytes() == before
        assert list(read_only_dump.parent.iterdir()) == [read_only_dump]
        assert "may not be written" in caplog.text
        assert str(tmp_path / "state") in caplog.text

    def test_its_scores_are_found_again(self, read_only_dump, tmp_path):
        for _ in range(2):
            store = MessageStore.open(read_only_dump, state_folder=tmp_path / "state")
            score_all(store, lambda text: 0.5)
            assert len(store.feed(MODEL, 10).items) == 3
            store.close()
        assert len(list((tmp_path / "state").iterdir())) == 1

    def test_the_state_folder_of_the_settings(self, read_only_dump, tmp_path, monkeypatch):
        monkeypatch.setattr(database, "settings", lambda: Settings(state=tmp_path / "home"))
        MessageStore.open(read_only_dump)
        assert list((tmp_path / "home").glob("chat-*.db"))

    def test_two_dumps_of_one_name_have_two_stores(self, tmp_path):
        paths = [tmp_path / folder / "chat.db" for folder in ("one", "two")]
        for count, path in enumerate(paths, 1):
            path.parent.mkdir()
            make_dump(path, count).chmod(0o444)
        stores = [MessageStore.open(path, state_folder=tmp_path / "state") for path in paths]
        assert [store.count() for store in stores] == [1, 2]

    def test_the_import_is_logged(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "feedsieve")
        path = make_dump(tmp_path / "chat.db")
        query(path, "INSERT INTO raw_rent_messages VALUES (9, ' ')")
        MessageStore.open(path)
        assert "added=3" in caplog.text and "empty: 1" in caplog.text

    def test_two_processes_make_and_fill_one_store(self, tmp_path):
        path = make_dump(tmp_path / "chat.db", 1)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(write_many, [path] * 2, range(2)))
        store = MessageStore.open(path)
        assert store.count() == 1 + 3 * 200
        score_all(store, lambda text: 0.5)
        items = store.feed(MODEL, 1000).items
        assert len(items) == 600  # the dump's message is a copy
        assert sum(item.copies for item in items) == 601
        assert query(path, "PRAGMA integrity_check") == [("ok",)]


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

    def test_a_reader_does_not_wait_for_a_writer(self, store, location):
        store.add(chat(3))
        with locked(location):
            assert store.count() == 3
            assert len(store.sample(2)) == 2
            assert store.feed(MODEL, 5).items == []
            other = MessageStore.open(location)
            assert other.count() == 3

    def test_another_writer_holds_it_for_too_long(self, location, monkeypatch):
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


@contextmanager
def locked(location: Location) -> Iterator[None]:
    """Let another writer be in the middle of its work."""
    other = MessageStore.open(location)
    with other._transaction(writes=True):
        yield
    other.close()


def test_readers_one_after_the_other_use_one_connection_to_sqlite(tmp_path):
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


def refusal(location: Location) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        MessageStore.open(location)
    return str(caught.value)


class TestUnavailable:
    def test_a_folder(self, tmp_path):
        assert refusal(tmp_path) == f"message store {tmp_path}: a folder, not a file"

    def test_a_file_that_is_no_database(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("not a database")
        assert "not an SQLite database" in refusal(path)
        assert path.read_text() == "not a database"

    @pytest.mark.parametrize("table", ["messages", "scores", "models"])
    def test_a_database_of_another_program_is_left_as_it_is(self, tmp_path, table):
        path = tmp_path / "other.db"
        query(path, f"CREATE TABLE {table} (id, text)")
        before = path.read_bytes()
        message = refusal(path)
        assert f"its table {table} is another program's: it has no column" in message
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_damaged_file(self, store, location):
        store.add(chat(2000))
        store.close()
        whole = location.read_bytes()
        location.write_bytes(whole[:100] + b"\xff" * 5000)
        assert str(location) in refusal(location)
        location.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        with pytest.raises(StoreUnavailable, match="malformed"):
            MessageStore.open(location).sample(100)

    def test_a_read_only_file_that_is_no_dump(self, store, location):
        store.close()
        location.chmod(0o444)
        assert "may not be written, and it is not a chat dump" in refusal(location)

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        assert "File exists" in refusal(tmp_path / "file" / "store.db")

    def test_a_home_that_is_unknown(self):
        assert "home directory" in refusal("~nobody-of-this-name/store.db")

    @pytest.mark.parametrize(
        "location", ["sqlite://", "sqlite:///:memory:", "sqlite:///a?uri=true"]
    )
    def test_memory(self, location):
        assert "cannot be shared by threads" in refusal(location)

    @pytest.mark.parametrize(
        "location",
        ["mysql://me:secret@host/db", "postgresql+absent://me:secret@host/db", "a b://me:secret@h"],
    )
    def test_another_database_and_its_password_is_not_told(self, location):
        assert "secret" not in refusal(location)

    def test_a_full_database_keeps_what_it_had(self, store):
        store.add(chat(10))

        @event.listens_for(store._engine, "checkout")
        def shrink(connection: Any, *_: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # as many as there are already

        with pytest.raises(StoreUnavailable, match="full"):
            store.add(chat(5000, 100))
        event.remove(store._engine, "checkout", shrink)
        assert store.count() == 10
        assert {message.id for message in chat(10)} == set(store.sample(100))

    def test_a_full_disk_keeps_what_it_had(self, store, location):
        store.add(chat(10))
        score_all(store, lambda text: 0.5)
        with largest_file(200_000), pytest.raises(StoreUnavailable, match="store.db"):
            store.add(chat(5000, 100))
        assert store.count() == 10
        assert len(store.feed(MODEL, 100).items) == 10
        assert store.add(chat(5000, 100)).added == 5000
        assert query(location, "PRAGMA integrity_check") == [("ok",)]

    def test_a_dump_whose_import_fails_is_imported_whole_the_next_time(self, tmp_path):
        path = make_dump(tmp_path / "chat.db", 0)
        query(
            path,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO raw_rent_messages SELECT i, 'text ' || i FROM n",
        )
        with largest_file(path.stat().st_size + 200_000):
            assert str(path) in refusal(path)
        assert MessageStore.open(path).count() == 3000

    def test_a_table_that_is_gone(self, store, location):
        query(location, "DROP TABLE scores")
        with pytest.raises(StoreUnavailable, match="no such table: scores"):
            store.feed(MODEL, 5)


Method = Callable[[MessageStore], object]


@pytest.fixture(scope="module")
def plans(tmp_path_factory) -> Callable[[Method], list[str]]:
    """Return what runs a method and tells the steps in which SQLite goes about it."""
    path = tmp_path_factory.mktemp("plans") / "store.db"
    store = MessageStore.open(path)
    store.add(chat(500))
    for model in (MODEL, "other"):
        score_all(store, lambda text: 0.5, model)

    def steps_of(method: Method) -> list[str]:
        ran: list[tuple[str, Any]] = []

        def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: object) -> None:
            if not statement.startswith("BEGIN"):
                ran.append((statement, values))

        event.listen(store._engine, "before_cursor_execute", note)
        method(store)
        event.remove(store._engine, "before_cursor_execute", note)
        plans = [query(path, f"EXPLAIN QUERY PLAN {text}", *values) for text, values in ran]
        return [step for plan in plans for *_, step in plan]

    return steps_of


class TestVersion:
    def test_it_changes_with_what_any_store_writes_and_not_otherwise(self, store, location):
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


class TestQueryPlans:
    @pytest.mark.parametrize(
        "method",
        [
            lambda store: store.feed(MODEL, 10),
            lambda store: store.feed(MODEL, 10, Cursor(MODEL, 0.5, "8" * 32, 10)),
            lambda store: store.get("m00001"),
            lambda store: score_of(store, MODEL, "m00001"),
            lambda store: store.unscored("new", 10, after="8" * 32),
            lambda store: store.sample(5),
        ],
        ids=["feed", "next page", "get", "find", "unscored", "sample"],
    )
    def test_an_index_is_used(self, plans, method):
        steps = plans(method)
        assert any(step.startswith("SEARCH") for step in steps)
        assert not [
            step
            for step in steps
            if step.startswith(("SCAN messages", "SCAN scores", "SCAN twins"))
        ]

    def test_the_feed_is_read_in_its_order(self, plans):
        steps = plans(lambda store: store.feed(MODEL, 1000, Cursor(MODEL, 0.5, "8" * 32, 10)))
        assert len([step for step in steps if "scores_by_rank" in step]) == 2
        assert not [step for step in steps if "TEMP B-TREE" in step]
