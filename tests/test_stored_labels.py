"""Training on the labels in the message store."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from labelled_files import table, write_csv
from python_process import run_python
from serving import ROOT
from stores import location, new_location, store
from tiny_bert import save_tiny_bert

from feedsieve.message import Message
from feedsieve.store.labels import GivenLabel
from train.data.labelled import read_labeled
from train.data.split import data_fingerprint
from train.data.stored_labels import NoLabels, read_stored
from train.data.validation import InvalidData

__all__ = ["location", "new_location", "store"]

WHEN = datetime(2026, 1, 5, 10, tzinfo=UTC)
WORDS = {"0": "negative", "1": "positive"}


def train(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BENTOML_HOME": str(cwd / "bentoml")}
    return run_python("-m", "train", *arguments, cwd=cwd, env=environment)


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return table(40)


@pytest.fixture
def labelled(store, rows):
    """A store with the rows of a table, labelled by one person."""
    store.add([Message(row["msg_id"], row["msg"], "Соседи") for row in rows])
    store.add_labels(
        [GivenLabel(row["msg_id"], WORDS[row["label"]], "anna", "test", WHEN) for row in rows]
    )
    return store


class TestReadStored:
    def test_frame_is_that_of_a_file_with_the_same_labels(self, labelled, rows, tmp_path):
        frame = read_stored(labelled)
        expected = read_labeled(write_csv(tmp_path / "l.csv", rows))
        ours = frame.set_index("msg_id").loc[expected["msg_id"]].reset_index()
        pd.testing.assert_frame_equal(ours[["msg_id", "msg", "label"]], expected)
        assert data_fingerprint(frame) == data_fingerprint(expected)
        assert set(frame["labeled_at"]) == {pd.Timestamp(WHEN)}

    def test_checked_labels_are_marked(self, labelled, rows):
        checked = {rows[3]["msg_id"], rows[8]["msg_id"]}
        labelled.add_labels(
            [
                GivenLabel(name, "positive", "boris", "audit", WHEN, is_ground_truth=True)
                for name in checked
            ]
        )
        frame = read_stored(labelled)
        assert set(frame.loc[frame["ground_truth"], "msg_id"]) == checked
        assert (frame.loc[frame["ground_truth"], "label"] == 1).all()

    def test_agreement_and_ties_are_printed(self, labelled, rows, capsys):
        others = {row["msg_id"]: WORDS[row["label"]] for row in rows[:20]}
        others |= {"m0": "negative", "m1": "positive"}
        labelled.add_labels(
            [GivenLabel(name, label, "boris", "test", WHEN) for name, label in others.items()]
        )
        frame = read_stored(labelled)
        assert len(frame) == 38 and not {"m0", "m1"} & set(frame["msg_id"])
        output = capsys.readouterr().out
        assert "40 messages labelled by 2 people, 13 of them positive" in output
        assert "anna and boris agree on 90% of 20 messages, Cohen's kappa 0.78" in output
        assert "left out 2 on which people are tied: 'm0'; 'm1'" in output

    def test_store_without_labels_names_the_ways_to_get_some(self, store):
        with pytest.raises(NoLabels, match="has no labels; import some with") as caught:
            read_stored(store)
        assert "\n" not in str(caught.value)

    def test_too_few_labels_are_reported(self, store):
        store.add([Message("1", "Продам велосипед")])
        store.add_labels([GivenLabel("1", "positive", "anna", "test")])
        with pytest.raises(InvalidData, match="too few rows: 1, and at least 20"):
            read_stored(store)


class TestTrain:
    def test_store_alone_trains(self, labelled, location, tmp_path):
        labelled.add([Message("new", "Отдам котёнка")])
        save_tiny_bert(tmp_path / "tiny")
        done = train("--db", location, "--encoder", "tiny", "--report", "report", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "40 messages labelled by 1 people, 14 of them positive" in done.stdout
        metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
        assert metrics["test"]["n"] > 0
        assert len(labelled.scores_by(metrics["classifier_tag"])) == 41

    def test_store_without_labels_fails_in_one_line(self, store, location, tmp_path):
        done = train("--db", location, cwd=tmp_path)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if line.startswith("train:")]
        assert "has no labels" in line and "Traceback" not in done.stderr

    def test_without_any_data_no_store_is_made(self, tmp_path):
        """An empty one would be the user's own data, and the sample not used any more."""
        done = train(cwd=tmp_path)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("train: there is no data: neither data/messages.db nor ")
        assert not (tmp_path / "data").exists()
