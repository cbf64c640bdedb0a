from collections.abc import Callable, Iterator
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
    location,
    new_location,
    pages,
    query,
    score_all,
    score_of,
    store,
)

from feedsieve.message import Message
from feedsieve.store.feed import Cursor
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["location", "new_location", "store"]


class TestFeed:
    def test_labels_follow_each_models_threshold(self, store):
        store.add([Message("low", "4"), Message("at", "5"), Message("high", "6")])
        for model, threshold in (("strict", 0.6), ("mild", 0.5)):
            store.start_model(model, threshold)
            store.start_model(model, 0.0)  # known already: nothing changes
            score_all(store, lambda text: int(text) / 10, model)
        decisions = {
            model: [item.id for item in store.feed(model, 9).items if item.label == "positive"]
            for model in ("strict", "mild")
        }
        assert decisions == {"strict": ["high"], "mild": ["high", "at"]}

    def test_page_names_its_model(self, store):
        store.add(chat(3))
        score_all(store, lambda text: 0.5)
        page = store.feed(MODEL, 2)
        assert page.model == MODEL
        assert store.feed("another", 2, page.next).model == MODEL
        assert store.feed("unknown", 2).items == []

    def test_items_are_ordered_by_falling_score(self, store):
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
    def test_pages_concatenate_to_the_whole_feed(self, store, limit):
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
    def test_no_item_repeats_if_scores_arrive_between_pages(self, twelve, scores, limit, split):
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

    def test_next_page_is_of_the_cursors_model(self, store):
        store.add(chat(6))
        score_all(store, lambda text: int(text[-1]) / 10, model="one")
        score_all(store, lambda text: 1 - int(text[-1]) / 10, model="two")
        first = store.feed("one", 3)
        rest = store.feed("two", 10, first.next)
        assert [item.text for item in rest.items] == ["text 2", "text 1", "text 0"]

    def test_foreign_cursor_returns_no_items(self, store):
        store.add(chat(3))
        score_all(store, lambda text: 0.5)
        assert store.feed(MODEL, 3, Cursor("other", 0.9, "0" * 32, 4)).items == []
        assert store.feed(MODEL, 3, Cursor(MODEL, -1.0, "0" * 32, 4)).items == []

    def test_empty_store_has_no_items(self, store):
        page = store.feed(MODEL, 3)
        assert (page.items, page.next) == ([], None)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_limit_below_one_is_rejected(self, store, limit):
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
    def test_sample_has_the_requested_size_without_repeats(self, store, limit):
        store.add(chat(50))
        identifiers = store.sample(limit)
        assert len(identifiers) == min(limit, 50)
        assert len(set(identifiers)) == len(identifiers)
        assert set(identifiers) <= {message.id for message in chat(50)}

    def test_every_message_is_drawn_sometimes(self, store):
        store.add(chat(50))
        drawn = [identifier for _ in range(300) for identifier in store.sample(3)]
        assert set(drawn) == {message.id for message in chat(50)}
        assert max(map(drawn.count, drawn)) < 50  # 18 expected

    def test_sample_of_all_is_in_random_order(self, store):
        store.add(chat(50))
        assert store.sample(50) != store.sample(50)

    def test_empty_store_has_no_items(self, store):
        assert store.sample(3) == []

    def test_negative_limit_is_rejected(self, store):
        with pytest.raises(ValueError, match="must not be negative"):
            store.sample(-1)


Method = Callable[[MessageStore], object]


@pytest.fixture(scope="module")
def plans(tmp_path_factory) -> Callable[[Method], list[str]]:
    """Return a function that gives the steps of SQLite's query plans for a method."""
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
    def test_queries_use_an_index(self, plans, method):
        steps = plans(method)
        assert any(step.startswith("SEARCH") for step in steps)
        assert not [
            step
            for step in steps
            if step.startswith(("SCAN messages", "SCAN scores", "SCAN twins"))
        ]

    def test_feed_is_read_in_index_order(self, plans):
        steps = plans(lambda store: store.feed(MODEL, 1000, Cursor(MODEL, 0.5, "8" * 32, 10)))
        assert len([step for step in steps if "scores_by_rank" in step]) == 2
        assert not [step for step in steps if "TEMP B-TREE" in step]
