import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from labelled_files import complaint, sentences, table, write_csv

from train.data.labelled import read_labeled


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


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
    def test_all_formats_give_the_same_rows(self, tmp_path, expected, name):
        full = tasks()
        for task in full:
            task["annotations"][0]["result"][0]["from_name"] = name
        for path in (
            write_csv(tmp_path / "a.csv", flat_rows(name)),
            write_json(tmp_path / "min.json", flat_rows(name)),
            write_json(tmp_path / "full.json", full),
        ):
            pd.testing.assert_frame_equal(read_labeled(path), expected)

    def test_other_kinds_of_json_give_the_same_rows(self, tmp_path, expected):
        full = tasks()
        renamed = [
            task | {"data": {"message_id": task["data"]["msg_id"], "text": task["data"]["msg"]}}
            for task in full
        ]
        earlier = [task | {"completions": task["annotations"]} for task in full]
        for task in earlier:
            del task["annotations"]
        lines = tmp_path / "lines.jsonl"
        lines.write_text("\n".join(map(json.dumps, full)), encoding="utf-8")
        for path in (
            lines,
            write_json(tmp_path / "twice.json", [task for task in full for _ in range(2)]),
            write_json(tmp_path / "renamed.json", renamed),
            write_json(tmp_path / "earlier.json", earlier),
        ):
            pd.testing.assert_frame_equal(read_labeled(path), expected)

    def test_task_id_and_text_replace_missing_fields(self, tmp_path):
        document = tasks()
        for task in document:
            task["data"] = {"text": task["data"]["msg"]}
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["msg_id"].tolist()[:2] == ["1000", "1001"]
        assert frame["msg"].tolist() == sentences(30)

    def test_majority_of_annotators_decides(self, tmp_path):
        document = tasks()
        document[0]["annotations"] = [
            annotation("negative", 1),
            annotation("positive", 2),
            annotation("negative", {"id": 3, "email": "c@example.org"}),
        ]
        assert read_labeled(write_json(tmp_path / "a.json", document))["label"][0] == 0

    def test_tie_is_left_out_with_a_warning(self, tmp_path, caplog):
        document = tasks()
        document[7]["annotations"] = [annotation("negative", 1), annotation("positive", 2)]
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert "m7" not in frame["msg_id"].tolist()
        assert len(frame) == 29
        assert "tied on 1 tasks, left out: row 8, msg_id 'm7'" in caplog.text

    def test_latest_annotation_of_an_annotator_counts(self, tmp_path):
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

    def test_label_in_the_task_data_is_ignored(self, tmp_path):
        document = tasks()
        for task in document:
            task["data"]["label"] = "positive"
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["label"].sum() == 10

    def test_unknown_choices_are_reported(self, tmp_path):
        document = tasks()
        document[3]["annotations"][0]["result"][0]["value"]["choices"] = ["positive", "negative"]
        document[4]["annotations"] = [annotation("positive", 1), annotation("unsure", 2)]
        message = complaint(write_json(tmp_path / "a.json", document))
        assert "row 4, msg_id 'm3'" in message
        assert "row 5, msg_id 'm4': 'unsure'" in message

    def test_two_possible_label_columns_are_rejected(self, tmp_path):
        rows = [row | {"other": "1"} for row in flat_rows("sentiment")]
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "labels could be any of 'sentiment'; 'other'" in message

    def test_missing_label_column_is_rejected(self, tmp_path):
        rows = [row | {"other": "x"} for row in flat_rows("sentiment")]
        for row in rows:
            row["sentiment"] = "y"
        assert "no column holds labels" in complaint(write_csv(tmp_path / "a.csv", rows))

    def test_repeated_identifier_is_reported(self, tmp_path):
        document = tasks()
        document[5]["data"]["msg_id"] = "m4"
        message = complaint(write_json(tmp_path / "a.json", document))
        assert "msg_id given before in 1 row(s): row 6, msg_id 'm4'" in message

    def test_surrogates_are_made_storable(self, tmp_path):
        document = tasks()
        document[0]["data"]["msg"] = "home \ud83c\udfe0 half \ud83c"
        frame = read_labeled(write_json(tmp_path / "a.json", document))
        assert frame["msg"][0] == "home \U0001f3e0 half \ufffd"
