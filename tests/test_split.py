import random
import time
from itertools import chain
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest
from labelled_files import sentences

from feedsieve.text import normalise
from train.data.near_duplicates import near_duplicate_groups
from train.data.split import Split, split

PARTS = ("train", "test")


class TestNearDuplicates:
    def test_price_case_and_spacing_are_ignored(self):
        texts = sentences(3)
        texts += [
            "Flat in the centre, 2 bedrooms, 1200 a month, call 99123456",
            "flat in the centre,  3 bedrooms, 950 a month, call 96000001",
        ]
        assert near_duplicate_groups(texts, progress=False).tolist() == [0, 1, 2, 3, 3]

    def test_one_more_word_is_a_copy_and_half_a_text_is_not(self):
        text = " ".join(sentences(3))
        texts = [text, text + " today", text[: len(text) // 2]]
        assert near_duplicate_groups(texts, progress=False).tolist() == [0, 0, 1]

    def test_texts_that_share_three_fifths_are_no_copies(self):
        # Letters at random: words would repeat, and repeated shingles count once.
        letters = [random.Random(seed).choices(ascii_lowercase, k=400) for seed in range(40)]
        texts = ["".join(text) for text in letters]
        shorter = [text[: round(len(text) * 0.6)] for text in texts]
        groups = near_duplicate_groups(texts + shorter, progress=False)
        assert len(set(groups)) == 80

    def test_copies_of_copies_share_a_group(self):
        words = " ".join(sentences(8)).split()
        chain = [" ".join(words[start : start + 60]) for start in range(0, 36, 6)]
        assert near_duplicate_groups([chain[0], chain[-1]], progress=False).tolist() == [0, 1]
        assert set(near_duplicate_groups(chain, progress=False).tolist()) == {0}

    def test_short_texts_match_equal_texts_only(self):
        texts = ["+", "ok", "OK ", "+", "no", "7", "15", "", "\u200b"]
        groups = near_duplicate_groups(texts, progress=False).tolist()
        assert groups == [0, 1, 1, 0, 2, 3, 3, 4, 4]

    def test_no_texts_have_no_groups(self):
        assert near_duplicate_groups([], progress=False).tolist() == []

    def test_order_does_not_matter(self):
        texts = sentences(20) + [text + " 5" for text in sentences(10)]
        order = np.random.default_rng(0).permutation(len(texts))
        groups = near_duplicate_groups(texts, progress=False)
        shuffled = near_duplicate_groups([texts[row] for row in order], progress=False)
        together = groups[:, None] == groups
        assert (together[np.ix_(order, order)] == (shuffled[:, None] == shuffled)).all()

    def test_progress_bar_is_optional(self, capsys):
        near_duplicate_groups(sentences(3))
        assert "near-duplicates" in capsys.readouterr().err
        near_duplicate_groups(sentences(3), progress=False)
        assert capsys.readouterr().err == ""


def frame_of(texts: list[str], labels: list[int], subset: list[str] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"msg_id": [f"m{number}" for number in range(len(texts))], "msg": texts, "label": labels}
    )
    return frame if subset is None else frame.assign(subset=subset)


def identifiers(parts: Split) -> list[list[str]]:
    return [sorted(getattr(parts, part)["msg_id"]) for part in PARTS]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    texts = sentences(200)
    texts += [f"{text} {number}" for number, text in enumerate(texts[:100])]
    return frame_of(texts, [int(number % 4 == 0) for number in range(300)])


class TestSplit:
    def test_every_message_is_in_one_part_in_proportion(self, frame):
        parts = split(frame, seed=0, progress=False)
        assert sorted(chain.from_iterable(identifiers(parts))) == sorted(frame["msg_id"])
        assert len(parts.test) == pytest.approx(60, abs=6)
        for part in PARTS:
            assert getattr(parts, part)["label"].mean() == pytest.approx(0.25, abs=0.04)

    def test_copies_stay_in_one_part(self, frame):
        for seed in range(3):
            parts = split(frame, seed=seed, progress=False)
            seen = [
                {" ".join(text.split()[:12]) for text in getattr(parts, part)["msg"]}
                for part in PARTS
            ]
            assert not seen[0] & seen[1]

    def test_seed_decides_and_order_does_not(self, frame):
        first = split(frame, seed=1, progress=False)
        shuffled = frame.sample(frac=1, random_state=3)
        assert identifiers(split(shuffled, seed=1, progress=False)) == identifiers(first)
        assert identifiers(split(frame, seed=2, progress=False)) != identifiers(first)

    def test_subset_column_decides(self, frame):
        given = frame.assign(
            subset=["test" if number % 5 == 0 else "train" for number in range(300)]
        )
        parts = split(given, seed=0, progress=False)
        assert sorted(parts.test["msg_id"]) == sorted(given.query("subset == 'test'")["msg_id"])

    def test_copies_across_a_given_split_are_reported(self, caplog):
        texts = sentences(60)
        texts[50] = texts[0] + " 1"
        texts[51] = texts[1]
        texts[53] = texts[54]
        frame = frame_of(texts, [0, 1] * 30, ["train"] * 50 + ["test"] * 10)
        split(frame, seed=0, progress=False)
        assert "2 of 10 test messages have a near-duplicate" in caplog.text
        caplog.clear()
        split(frame_of(sentences(60), [0, 1] * 30, ["train"] * 50 + ["test"] * 10), 0)
        assert caplog.text == ""

    def test_share_is_configurable(self, frame):
        parts = split(frame, seed=0, test_share=0.5, progress=False)
        assert len(parts.test) == pytest.approx(150, abs=6)

    def test_large_group_of_copies_does_not_fill_the_test_part(self):
        texts = sentences(100) + ["your message was deleted"] * 150
        labels = [int(number % 4 == 0) for number in range(100)] + [0] * 150
        for seed in range(5):
            parts = split(frame_of(texts, labels), seed=seed, progress=False)
            assert all(getattr(parts, part)["label"].sum() >= 3 for part in PARTS)
            assert len(parts.test) < 100

    @pytest.mark.parametrize("share", [0, -0.1, 0.6, 1])
    def test_bad_shares_are_rejected(self, frame, share):
        with pytest.raises(ValueError, match="above 0 and at most 0.5"):
            split(frame, seed=0, test_share=share, progress=False)

    def test_label_of_copies_only_is_rejected(self):
        texts = ["rent me"] * 15 + sentences(15)
        with pytest.raises(ValueError, match="1 positive and 15 negative"):
            split(frame_of(texts, [1] * 15 + [0] * 15), seed=0, progress=False)

    def test_minimum_number_of_messages_can_be_split(self):
        frame = frame_of(sentences(20), [int(number % 4 == 0) for number in range(20)])
        for seed in range(5):
            parts = split(frame, seed=seed, progress=False)
            assert all(getattr(parts, part)["label"].nunique() == 2 for part in PARTS)


class TestCorpus:
    def test_real_corpus_splits_without_leaks_in_time(self, corpus):
        started = time.perf_counter()
        parts = split(corpus.drop(columns="subset", errors="ignore"), seed=0, progress=False)
        assert time.perf_counter() - started < 60
        shares = [getattr(parts, part)["label"].mean() for part in PARTS]
        assert max(shares) - min(shares) < 0.02
        texts = [set(getattr(parts, part)["msg"].map(normalise).str.lower()) for part in PARTS]
        assert not texts[0] & texts[1]
