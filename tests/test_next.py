"""Choice of the messages to label next."""

import csv
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from labeling_command import texts
from python_process import run_python
from serving import ROOT

from feedsieve.message import Message
from feedsieve.store.labels import GivenLabel
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from labeling.batch import read_batch
from labeling.choose import candidates, choose, doubt, representatives, vectors
from labeling.next import Scores, in_time, next_batch
from labeling.simulate import NEXT, TIME, TIME_ONCE, WAYS, read_corpus, simulate
from train.data.near_duplicates import near_duplicate_groups

TOPICS = ("flat to let by the sea", "bicycle for sale cheap", "who knows a good dentist")


def topical(count: int) -> list[Message]:
    """Return messages of three topics in turn, no two of them near-duplicates."""
    rest = texts(count, seed=3)
    return [Message(f"{number}", f"{TOPICS[number % 3]} {rest[number]}") for number in range(count)]


class TestInTime:
    def test_identifiers_are_in_natural_order(self):
        names = ["10", "9", "chat:10", "chat:9", "x"]
        ordered = in_time([Message(name, "a") for name in names])
        assert [message.id for message in ordered] == ["9", "10", "chat:9", "chat:10", "x"]

    def test_time_takes_precedence_over_identifiers(self):
        late = Message("1", "a", time=datetime(2026, 2, 1, tzinfo=UTC))
        early = Message("2", "a", time=datetime(2026, 1, 1, tzinfo=UTC))
        assert in_time([late, early]) == [early, late]


class TestChoose:
    def test_candidates_are_one_per_group_without_taken_ones(self):
        groups = np.array([0, 1, 0, 2, 1, 3])
        is_taken = np.array([False, False, False, False, True, False])
        assert candidates(groups, is_taken).tolist() == [0, 3, 5]

    def test_doubt_is_greatest_at_the_threshold(self):
        doubts = doubt(np.array([0.0, 0.2, 0.3, 0.4, 1.0]), 0.3)
        assert doubts.argmax() == 2 and np.isfinite(doubts).all()
        assert doubts[0] < doubts[1] and doubts[4] < doubts[3]

    def test_representatives_cover_every_cluster(self):
        rng = np.random.default_rng(0)
        centres = np.repeat(np.eye(4) * 10, [40, 30, 20, 10], axis=0)
        rows = centres + rng.normal(scale=0.1, size=centres.shape)
        chosen = representatives(rows, 4, seed=0)
        assert [int(rows[row].argmax()) for row in chosen] == [0, 1, 2, 3]

    @pytest.mark.parametrize("count", [0, 1, 5, 6, 20])
    def test_representatives_of_equal_rows_are_distinct(self, count):
        rows = np.repeat(np.eye(3), [4, 1, 1], axis=0)
        chosen = representatives(rows, count, seed=0)
        assert len(chosen) == len(set(chosen.tolist())) == min(count, 6)

    def test_most_chosen_rows_are_uncertain_and_a_few_are_not(self):
        rng = np.random.default_rng(0)
        pool = np.arange(1000)
        doubts = -np.arange(1000.0)
        chosen = choose(pool, rng.normal(size=(1000, 8)), 20, 0, doubts)
        assert len(set(chosen.tolist())) == 20
        assert np.sort(chosen)[:18].tolist() == list(range(18))
        assert np.sort(chosen)[18] > 18

    def test_texts_without_words_have_vectors(self):
        assert vectors(["", "\U0001f3e0"], 0).shape[0] == 2
        assert np.isfinite(vectors(["", "a b", "!!", "b c"] * 30, 0)).all()


class TestNextBatch:
    def test_batch_in_order_of_time(self):
        batch = next_batch(topical(30)[::-1], [topical(30)[0].text], 5, 0, by="time")
        assert [item.msg_id for item in batch] == ["1", "2", "3", "4", "5"]

    def test_batch_without_a_model_has_all_topics(self):
        messages = [message for message in topical(90) if int(message.id) % 3 == 0 or
                    int(message.id) < 12]  # fmt: skip
        batch = next_batch(messages, [], 6, 0)
        assert {int(item.msg_id) % 3 for item in batch} == {0, 1, 2}
        assert all(item.score is None for item in batch)

    def test_batch_has_no_near_duplicates(self):
        messages = topical(40)
        copies = [
            Message(f"copy{message.id}", f"{message.text}!!", time=message.time)
            for message in messages
        ]
        labeled = [message.text + " ?" for message in messages[:10]]
        batch = next_batch(messages + copies, labeled, 50, 0)
        assert len(batch) == 30
        groups = near_duplicate_groups([item.msg for item in batch] + labeled, progress=False)
        assert len(set(groups.tolist())) == 40

    def test_batch_with_a_model_has_uncertain_messages(self):
        messages = topical(300)
        scores = {
            fingerprint(message.text): 0.3 if int(message.id) >= 250 else 0.999
            for message in messages
        }
        batch = next_batch(messages, [], 10, 0, scores=Scores("some:tag", 0.3, scores))
        assert sum(int(item.msg_id) >= 250 for item in batch) >= 9
        assert {item.model for item in batch} == {"some:tag"}
        assert {item.score for item in batch} <= {0.3, 0.999}

    def test_same_seed_gives_the_same_batch(self):
        messages = topical(200)
        assert next_batch(messages, [], 20, 1) == next_batch(messages[::-1], [], 20, 1)


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path):
        store = MessageStore.open(str(tmp_path / "messages.db"))
        store.add(topical(60))
        store.close()

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = ["-m", "labeling.next", "--db", "messages.db", *arguments]
            own = {"BENTOML_HOME": str(tmp_path / "bentoml"), "PYTHONPATH": str(ROOT)}
            return run_python(*command, cwd=tmp_path, env=os.environ | own)

        return call

    def test_second_batch_has_other_messages(self, run, tmp_path):
        done = run("--labeled", "labeled.csv", "--out", "one.csv", "--count", "20")
        assert done.returncode == 0, done.stderr
        assert "labeled.csv does not exist: no message counts as labelled" in done.stdout
        assert "20 of 60 messages, chosen for variety: there is no model yet" in done.stdout
        one = read_batch(tmp_path / "one.csv")
        with (tmp_path / "labeled.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [["msg_id", "msg", "label"], *([item.msg_id, item.msg, "1"] for item in one)]
            )
        done = run("--labeled", "labeled.csv", "--out", "two.csv", "--count", "50")
        assert done.returncode == 0, done.stderr
        two = read_batch(tmp_path / "two.csv")
        assert len(two) == 40
        assert not {item.msg_id for item in one} & {item.msg_id for item in two}
        assert "all other messages are labelled" in done.stdout

    def test_messages_that_are_labelled_in_the_store_are_left_out(self, run, tmp_path):
        store = MessageStore.open(str(tmp_path / "messages.db"))
        first, *_rest = store.read_all()
        store.add_labels([GivenLabel(first.id, "negative", "anna", "test")])
        done = run("--out", "one.csv", "--count", "200")
        assert done.returncode == 0, done.stderr
        assert first.id not in {item.msg_id for item in read_batch(tmp_path / "one.csv")}
        assert "all other messages are labelled" in done.stdout

    def test_existing_file_is_not_replaced(self, run, tmp_path):
        (tmp_path / "one.csv").write_text("mine")
        done = run("--out", "one.csv")
        assert done.returncode == 1
        assert "one.csv already exists" in done.stderr
        assert (tmp_path / "one.csv").read_text() == "mine"

    def test_exported_labels_are_read(self, run, tmp_path):
        store = MessageStore.open(str(tmp_path / "messages.db"))
        first, *_rest = store.read_all()
        annotation = {"result": [{"type": "choices", "from_name": "label",
                                  "value": {"choices": ["positive"]}}]}  # fmt: skip
        task = {"id": 1, "data": {"msg_id": first.id, "msg": first.text},
                "annotations": [annotation]}  # fmt: skip
        (tmp_path / "export.json").write_text(json.dumps([task]))
        done = run("--labeled", "export.json", "--out", "one.csv", "--count", "60")
        assert done.returncode == 0, done.stderr
        assert {item.msg_id for item in read_batch(tmp_path / "one.csv")}.isdisjoint({first.id})

    def test_empty_store_is_reported(self, run, tmp_path):
        done = run("--db", "another.db", "--out", "one.csv")
        assert done.returncode == 1
        assert "another.db has no messages; `feedsieve import` adds some" in done.stderr
        assert not (tmp_path / "one.csv").exists()

    def test_invalid_count_is_rejected(self, run):
        done = run("--count", "0")
        assert done.returncode == 2 and "0 is not above 0" in done.stderr


def test_batch_of_a_trained_model_has_its_most_uncertain_messages(environment, tmp_path):
    """Scores are the served model's."""
    done = subprocess.run(
        [sys.executable, "-m", "labeling.next", "--out", tmp_path / "b.csv", "--count", "50"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    batch = read_batch(tmp_path / "b.csv")
    store = MessageStore.open(environment["FEEDSIEVE_DB"])
    model = batch[0].model
    assert model.startswith("feedsieve-classifier:")
    scores = store.scores_by(model)
    assert scores.keys() >= {fingerprint(message.text) for message in store.read_all()}
    assert [item.score for item in batch] == pytest.approx(
        [scores[fingerprint(item.msg)] for item in batch], abs=1e-6
    )
    sure = np.mean([min(score, 1 - score) < 0.02 for score in scores.values()])
    chosen = np.mean([min(item.score or 0, 1 - (item.score or 0)) < 0.02 for item in batch])
    assert chosen < sure / 2


@pytest.mark.lab
class TestSimulate:
    @pytest.fixture(scope="class")
    def scores(self, sample) -> dict[str, np.ndarray]:
        corpus = read_corpus(Path(sample) / "labeled_messages.csv", seed=0)
        return simulate(corpus, [50, 100], 50, [0], 2)

    def test_every_strategy_has_a_curve(self, scores):
        assert list(scores) == list(WAYS)
        assert {rows.shape for rows in scores.values()} == {(2, 2)}
        assert all(((rows >= 0) & (rows <= 1)).all() for rows in scores.values())

    def test_labeling_next_beats_order_of_time(self, scores):
        assert scores[NEXT].mean() > max(scores[TIME].mean(), scores[TIME_ONCE].mean())
