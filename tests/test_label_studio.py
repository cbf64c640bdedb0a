import csv
import json
import logging
import random
from pathlib import Path

import pandas as pd
import pytest

from train.data import InvalidData, read_labeled

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]


def sentences(count: int, seed: int = 0) -> list[str]:
    """Return texts of which no two are near-duplicates."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def table(count: int = 30, every: int = 3) -> list[dict[str, str]]:
    return [
        {"msg_id": f"m{number}", "msg": text, "label": str(int(number % every == 0))}
        for number, text in enumerate(sentences(count))
    ]


def write_csv(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        read_labeled(path)
    message = str(caught.value)
    assert str(path) in message
    return message


def annotation(choice: str | None, by: object = 1, at: str = "2026-01-01T00:00:00Z", **more):
    result = [
        {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
    ]
    return {
        "completed_by": by,
        "created_at": at,
        "was_cancelled": False,
        "result": result if choice else [],
    } | more


def tasks() -> list[dict]:
    return [
        {
            "id": 1000 + number,
            "data": {"msg_id": row["msg_id"], "msg": row["msg"]},
            "annotations": [annotation("positive" if row["label"] == "1" else "negative")],
            "predictions": [],
        }
        for number, row in enumerate(table())
    ]


def flat_rows(name: str = "label") -> list[dict[str, str]]:
    return [
        {
            "annotation_id": str(number),
            "annotator": "1",
            "created_at": "2026-01-01T00:00:00.000000Z",
            "id": str(1000 + number),
            name: "Positive" if row["label"] == "1" else "Negative",
            "lead_time": "1.5",
            "msg": row["msg"],
            "msg_id": row["msg_id"],
            "updated_at": "2026-01-01T00:00:00.000000Z",
        }
        for number, row in enumerate(table())
    ]


class TestReadsLabelStudio:
    @pytest.fixture
    def expected(self, tmp_path):
        return read_labeled(write_csv(tmp_path / "expected.csv", table()))

    @pytest.mark.parametrize("name", ["label", "sentiment"])
    def test_the_same_from_each_format(self, tmp_path, expected, name):
        full = tasks()
        for task in full:
            task["annotations"][0]["result"][0]["from_name"] = name
        for path in (
            write_csv(tmp_path / "a.csv", flat_rows(name)),
            write_json(tmp_path / "min.json", flat_rows(name)),
            write_json(tmp_path / "full.json", full),
        ):
            pd.testing.assert_frame_equal(read_labeled(path), expected)

    def test_the_task_stands_in_for_the_identifier_and_text_for_msg(self, tmp_path):
        document = tasks()
        for task in document:
            task["data"] = {"text": task["data"]["msg"]}
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["msg_id"].tolist()[:2] == ["1000", "1001"]
        assert frame["msg"].tolist() == sentences(30)

    def test_the_majority_of_annotators(self, tmp_path):
        document = tasks()
        document[0]["annotations"] = [
            annotation("negative", 1),
            annotation("positive", 2),
            annotation("negative", {"id": 3, "email": "c@example.org"}),
        ]
        assert read_labeled(write_json(tmp_path / "a.json", document))["label"][0] == 0

    def test_a_tie_is_dropped_with_a_warning(self, tmp_path, caplog):
        document = tasks()
        document[7]["annotations"] = [annotation("negative", 1), annotation("positive", 2)]
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert "m7" not in frame["msg_id"].tolist()
        assert len(frame) == 29
        assert "tied on 1 tasks, left out: row 8, msg_id 'm7'" in caplog.text

    def test_an_annotator_may_change_their_mind(self, tmp_path):
        document = tasks()
        document[0]["annotations"] = [
            annotation("negative", 1, "2026-01-01T00:00:00.5Z"),
            annotation("positive", 1, "2026-01-01T00:00:00Z"),
        ]
        document[1]["annotations"] = [
            annotation("positive", 1, updated_at="2026-03-01T00:00:00Z"),
            annotation("negative", 1, "2026-02-01T00:00:00Z"),
        ]
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["label"].tolist()[:2] == [0, 1]

    def test_flat_exports_have_a_row_for_each_annotation(self, tmp_path):
        rows = flat_rows()
        votes = [
            rows[1] | {"annotator": name, "label": label}
            for name, label in (("2", "Positive"), ("3", "Positive"))
        ]
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows + votes))
        assert len(frame) == 30
        assert frame["label"][1] == 1

    def test_cancelled_and_unlabelled_tasks_are_left_out(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        document = tasks()
        document[0]["annotations"] = []
        document[1]["annotations"] = [annotation("positive", was_cancelled=True)]
        document[2]["annotations"] = [annotation(None)]
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["msg_id"].tolist()[0] == "m3"
        assert len(frame) == 27
        assert "3 tasks have no label" in caplog.text

    def test_a_label_in_the_task_itself_is_no_annotation(self, tmp_path):
        document = tasks()
        for task in document:
            task["data"]["label"] = "positive"
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["label"].sum() == 10

    def test_choices_that_are_no_label_are_named(self, tmp_path):
        document = tasks()
        document[3]["annotations"][0]["result"][0]["value"]["choices"] = ["positive", "negative"]
        document[4]["annotations"] = [annotation("positive", 1), annotation("unsure", 2)]
        message = complaint(write_json(tmp_path / "a.json", document))
        assert "row 4, msg_id 'm3'" in message
        assert "row 5, msg_id 'm4': 'unsure'" in message

    def test_two_columns_that_could_be_labels(self, tmp_path):
        rows = [row | {"other": "1"} for row in flat_rows("sentiment")]
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "labels could be any of 'sentiment'; 'other'" in message

    def test_no_column_of_labels(self, tmp_path):
        rows = [row | {"other": "x"} for row in flat_rows("sentiment")]
        for row in rows:
            row["sentiment"] = "y"
        assert "nothing in it holds labels" in complaint(write_csv(tmp_path / "a.csv", rows))

    def test_two_tasks_with_one_identifier(self, tmp_path):
        document = tasks()
        document[5]["data"]["msg_id"] = "m4"
        message = complaint(write_json(tmp_path / "a.json", document))
        assert "msg_id given before in 1 row(s): row 6, msg_id 'm4'" in message

    def test_surrogates_are_stored_as_they_can_be(self, tmp_path):
        document = tasks()
        document[0]["data"]["msg"] = "home \ud83c\udfe0 half \ud83c"
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["msg"][0] == "home \U0001f3e0 half \ufffd"
