"""Shadows in the message store, the comparison of two models, and `feedsieve deploy --shadow`."""

import math
from datetime import UTC, datetime

import pytest
from stores import location, new_location, query, store

from feedsieve.message import Message
from feedsieve.shadow_comparison import compare
from feedsieve.store import database, shadows
from feedsieve.store.shadows import ShadowOutcome, ShadowPair
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["location", "new_location", "store"]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def pair(text: str, score: float = 0.4, shadow_score: float = 0.6) -> ShadowPair:
    return ShadowPair(
        fingerprint(text), score, shadow_score, score >= 0.5, shadow_score >= 0.5, NOON
    )


class TestShadows:
    def test_last_shadow_is_wanted(self, store):
        assert store.shadow() is None
        store.set_shadow("model:one", 0.5, "anna@laptop")
        wanted = store.set_shadow("model:two", 0.1, "boris@laptop")
        assert store.shadow() == wanted
        assert (wanted.tag, wanted.share, wanted.who) == ("model:two", 0.1, "boris@laptop")
        assert store.set_shadow(None, 0.1, "anna").tag is None
        for share in (0, 1.1, math.nan):
            with pytest.raises(ValueError, match="not above 0 and at most 1"):
                store.set_shadow("model:one", share, "anna")

    def test_server_has_one_outcome_of_the_last_shadow(self, store):
        first = store.set_shadow("model:one", 0.1, "anna")
        store.save_shadow_outcome(first.number, ShadowOutcome("a:1", None, NOON))
        failed = ShadowOutcome("a:1", "it is bad", NOON)
        store.save_shadow_outcome(first.number, failed)
        assert store.shadow_outcomes(first.number) == [failed]
        store.set_shadow("model:two", 0.1, "anna")
        assert store.shadow_outcomes(first.number) == []

    def test_text_counts_once_for_each_pair_of_models(self, store):
        first, second = pair("сад"), pair("дом")
        store.save_pairs("one", "two", [first, second])
        store.save_pairs("one", "two", [pair("сад", 0.1)])  # by another server
        store.save_pairs("one", "three", [pair("сад", 0.1)])
        store.save_pairs("one", "three", [])
        assert store.pairs("one", "two") == [first, second]
        assert store.pairs("two", "one") == []
        assert store.last_compared() == ("one", "three")
        assert store.last_compared("two") == ("one", "two")
        assert store.last_compared("four") is None

    def test_newest_pairs_are_kept(self, store, monkeypatch):
        monkeypatch.setattr(shadows, "MAX_PAIRS", 3)
        pairs = [pair(str(number)) for number in range(5)]
        store.save_pairs("one", "two", pairs[:4])
        store.save_pairs("one", "two", pairs[4:])
        assert store.pairs("one", "two") == pairs[2:]

    def test_pair_of_a_deleted_text_is_deleted(self, store):
        store.add([Message("1", "дом"), Message("2", "дом"), Message("3", "сад")])
        store.save_pairs("one", "two", [pair("дом"), pair("сад")])
        store.delete("1", "anna")
        assert len(store.pairs("one", "two")) == 2
        store.delete("2", "anna")
        assert store.pairs("one", "two") == [pair("сад")]

    def test_store_of_the_version_before_gets_the_tables(self, location, store):
        store.deploy("model:one", "anna")
        store.close()
        url, _dump = database.find_database(location, None)
        engine = database.create_engine(url)
        with engine.begin() as connection:
            for table in ("shadows", "shadow_outcomes", "shadow_pairs"):
                connection.exec_driver_sql(f"DROP TABLE {table}")
            connection.exec_driver_sql("UPDATE feedsieve_revision SET version_num = '4'")
        engine.dispose()
        opened = MessageStore.open(location)
        assert opened.shadow() is None
        opened.save_pairs("one", "two", [pair("дом")])
        assert opened.pairs("one", "two") == [pair("дом")]
        assert opened.wanted().tag == "model:one"
        assert query(location, "SELECT version_num FROM feedsieve_revision") == [("5",)]
        opened.close()


def pairs_of(scores, shadow_scores, positive, shadow_positive) -> list[ShadowPair]:
    return [
        ShadowPair(str(number), *row, NOON)
        for number, row in enumerate(
            zip(scores, shadow_scores, positive, shadow_positive, strict=True)
        )
    ]


BY_HAND = pairs_of(
    [0.1, 0.2, 0.2, 0.6, 0.9],
    [0.2, 0.1, 0.4, 0.4, 0.8],
    [False, False, False, True, True],
    [False, False, True, False, True],
)


class TestCompare:
    def test_figures_are_those_computed_by_hand(self):
        found = compare(BY_HAND)
        assert found.texts == 5
        assert found.agreement.value == pytest.approx(3 / 5)
        # Wilson: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.6, n = 5, z = 1.96
        assert found.agreement.low == pytest.approx(0.2307, abs=1e-4)
        assert found.agreement.high == pytest.approx(0.8824, abs=1e-4)
        assert (found.only_served, found.only_shadow) == (1, 1)
        assert found.positive == found.shadow_positive == pytest.approx(2 / 5)
        assert found.more_positive.value == 0
        # Bonett and Price: (2/7 - 2/7) ± 1.96 √((2/7 + 2/7) / 7)
        assert found.more_positive.high == pytest.approx(0.56, abs=1e-4)
        # Differences: 0.1, -0.1, 0.2, -0.2, -0.1
        assert found.shift.value == pytest.approx(-0.02)
        assert found.shift.high == pytest.approx(-0.02 + 1.96 * math.sqrt(0.027 / 5), abs=1e-4)
        assert found.mean_difference == pytest.approx(0.14)
        assert found.p90_difference == pytest.approx(0.2)
        # Ranks 1, 2.5, 2.5, 4, 5 and 2, 1, 3.5, 3.5, 5: 7.25 / √(9.5 · 9.5)
        assert found.rank_correlation.value == pytest.approx(7.25 / 9.5)
        width = 1.96 * math.sqrt((1 + (7.25 / 9.5) ** 2 / 2) / 2)
        low = math.tanh(math.atanh(7.25 / 9.5) - width)
        assert found.rank_correlation.low == pytest.approx(low)
        assert [one.texts for one in found.deciles] == [1] * 5
        assert [one.agreement for one in found.deciles] == [1, 1, 0, 0, 1]

    def test_deciles_are_by_the_served_models_score(self):
        scores = [number / 100 for number in range(100, 0, -1)]
        found = compare(pairs_of(scores, [0.5] * 100, [True] * 100, [False] * 50 + [True] * 50))
        lowest = found.deciles[0]
        assert (lowest.lowest, lowest.highest, lowest.texts) == (0.01, 0.1, 10)
        assert lowest.mean == pytest.approx(0.055)
        assert (lowest.shadow_mean, lowest.agreement) == (0.5, 1)
        assert (found.only_served, found.only_shadow) == (50, 0)
        assert found.more_positive.high < -0.38
        assert found.rank_correlation is None

    def test_equal_models_agree(self):
        scores = [number / 50 for number in range(50)]
        decided = [score > 0.5 for score in scores]
        found = compare(pairs_of(scores, scores, decided, decided))
        assert found.agreement.value == 1
        assert found.rank_correlation.value == pytest.approx(1)
        assert 0.9 < found.agreement.low < 1
        assert found.rank_correlation.low > 0.99
        assert found.shift.value == found.p90_difference == 0

    def test_one_text_is_compared_and_none_is_refused(self):
        found = compare(pairs_of([0.2], [0.3], [False], [False]))
        assert (found.shift.low, found.shift.high) == (-1, 1)
        assert found.rank_correlation is None
        with pytest.raises(ValueError, match="no texts"):
            compare([])
