import csv

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data.generate import compose
from feedsieve.message import Message
from labeling.weak import NoSeedWords, count_hits, holds, weak_scores, write_scores
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.data.validation import InvalidData

WANTED = ["сда", "здам", "здається", "for rent", "to let", "ενοικιάζεται"]
UNWANTED = ["сниму", "ищу", "прода", "посуточно", "for sale", "looking for"]


@pytest.fixture(scope="module")
def chat():
    return compose(1000, seed=3)


class TestHolds:
    @pytest.mark.parametrize(
        ("text", "phrase", "is_there"),
        [
            ("Сдаю квартиру", "сда", True),
            ("СДАЁТСЯ", "сда", True),
            ("не пересдаю", "сда", False),
            ("flat 🏠 to\nrent", "flat to r", True),
            ("1+1 (центр)", "1+1", True),
            ("anything", " ", False),
            ("", "сда", False),
        ],
    )
    def test_phrase_matches_at_the_start_of_a_word(self, text, phrase, is_there):
        assert holds([text], phrase).tolist() == [is_there]

    def test_count_hits_by_phrase(self):
        table = count_hits(["Сдаю", "сдам", "ищу"], ["сда"], ["ищу", "куплю"])
        assert table.to_dict("list") == {
            "phrase": ["сда", "ищу", "куплю"],
            "meant": ["wanted", "unwanted", "unwanted"],
            "messages": [2, 1, 0],
        }


class TestScores:
    def test_scores_rank_better_than_the_phrases_alone(self, chat):
        texts = [message.text for message in chat]
        is_let = np.array([message.is_let for message in chat])
        scores = weak_scores(texts, WANTED, UNWANTED, seed=7)
        assert ((scores >= 0) & (scores <= 1)).all()
        wanted, unwanted = (
            np.any([holds(texts, phrase) for phrase in phrases], axis=0)
            for phrases in (WANTED, UNWANTED)
        )
        by_phrases = average_precision_score(is_let, wanted & ~unwanted)
        assert average_precision_score(is_let, scores) > by_phrases > is_let.mean()

    def test_near_duplicates_share_a_score(self, chat):
        texts = [message.text for message in chat]
        texts += [text.replace("1", "2") for text in texts[:200]]
        scores = weak_scores(texts, WANTED, UNWANTED, seed=7)
        groups = near_duplicate_groups(texts, progress=False)
        assert len(set(zip(groups, scores, strict=True))) == len(set(groups)) < len(texts)

    def test_unwanted_phrase_outweighs_a_wanted_one(self, chat):
        texts = [message.text for message in chat]
        both = "ищу кто сдаёт дом у моря надолго"
        without = weak_scores([*texts, both], WANTED, [], seed=7)
        assert weak_scores([*texts, both], WANTED, ["ищу"], seed=7)[-1] < without[-1]

    @pytest.mark.parametrize("wanted", [[], [""], ["no message has this"], ["а", "б"]])
    def test_phrases_that_separate_nothing_are_rejected(self, wanted):
        with pytest.raises(NoSeedWords, match="choose other phrases"):
            weak_scores(["а если", "был дом"], wanted, [], seed=7)


class TestFile:
    def test_file_has_every_message_highest_score_first(self, tmp_path):
        messages = [Message("1", "low"), Message("007", 'high, "quoted"\nin lines')]
        write_scores(messages, np.array([0.25, 0.75]), tmp_path / "new" / "scored.csv")
        with (tmp_path / "new" / "scored.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [
                ["msg_id", "msg", "dummy_label"],
                ["007", 'high, "quoted"\nin lines', "0.7500"],
                ["1", "low", "0.2500"],
            ]

    def test_training_rejects_the_file(self, tmp_path):
        write_scores([Message("1", "text")], np.array([1.0]), tmp_path / "scored.csv")
        with pytest.raises(InvalidData, match="label"):
            read_labeled(tmp_path / "scored.csv")
