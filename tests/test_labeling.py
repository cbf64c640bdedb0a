"""Batches, merging of labels, and errors of `python -m labeling`; all without Label Studio."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from labeling_command import labeling, write_csv
from serving import ROOT, free_port

from feedsieve.message import Message
from feedsieve.sources.labels.files import STUDIO
from feedsieve.sources.labels.label_studio import Decision, Vote
from feedsieve.sources.report import ReadReport
from feedsieve.store.store import MessageStore
from labeling.batch import InvalidBatch, Item, read_batch, write_batch
from labeling.pull import (
    Export,
    InvalidLabels,
    Label,
    agreements,
    merge,
    refuse_other_messages,
    resolve,
    stored_labels,
)
from labeling.push import TITLE, make_task, project_title


def vote(label: str, day: int = 1) -> Vote:
    return Vote(label, datetime(2026, 1, day, tzinfo=UTC))


def decision(identifier: str, label: str | None, **votes: Vote) -> Decision:
    return Decision({"msg_id": identifier, "msg": f"text {identifier}"}, votes, label)


class TestResolve:
    def test_majority_and_time_of_its_last_vote(self):
        voted = decision("1", "1", b=vote("positive", 2), a=vote("1", 3), c=vote("negative", 9))
        assert resolve([voted]) == (
            [Label("1", "text 1", 1, "a b", "2026-01-03T00:00:00+00:00")],
            [],
        )

    def test_tie_gives_no_label(self):
        tied = decision("1", None, a=vote("positive"), b=vote("negative"))
        assert resolve([tied]) == ([], ["1"])

    def test_later_decision_takes_precedence(self):
        first = decision("1", "1", a=vote("positive", 9), b=vote("positive", 9))
        audit = decision("1", "0", a=vote("negative", 2))
        [label], tied = resolve([first, audit])
        assert (label.label, label.annotator, tied) == (0, "a", [])

    def test_same_msg_id_with_different_texts_is_two_messages(self):
        one = Decision({"msg_id": "1", "msg": "one"}, {"a": vote("positive")}, "1")
        other = Decision({"msg_id": "1", "msg": "other"}, {"a": vote("negative")}, "0")
        labels, _tied = resolve([one, other])
        assert [(label.msg, label.label) for label in labels] == [("one", 1), ("other", 0)]
        merged = merge(["msg_id", "msg", "label"], [], labels)
        assert [row["msg"] for row in merged.rows] == ["one"] and merged.other_text == ["1"]

    def test_unknown_choice_is_rejected(self):
        with pytest.raises(InvalidLabels, match="msg_id '1' is labelled 'unsure'"):
            resolve([decision("1", "unsure", a=vote("unsure"))])


ROWS = [
    {"msg_id": "1", "msg": "text 1", "label": "positive", "note": "mine"},
    {"msg_id": "2", "msg": "text 2", "label": "0", "note": ""},
]
COLUMNS = ["msg_id", "msg", "label", "note"]


class TestMerge:
    def label(self, identifier: str, label: int, msg: str = "") -> Label:
        return Label(identifier, msg or f"text {identifier}", label, "a", "then")

    def test_new_rows_are_appended_and_none_removed(self):
        merged = merge(COLUMNS, ROWS, [self.label("3", 1)])
        assert merged.columns == [*COLUMNS, "annotator", "labeled_at"]
        assert merged.rows[:2] == ROWS
        assert merged.rows[2]["label"] == "1" and merged.rows[2]["annotator"] == "a"
        assert (merged.added, merged.confirmed, merged.changed) == (1, 0, [])

    def test_equal_label_keeps_its_spelling(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 1)])
        assert merged.rows[0] == ROWS[0] | {"annotator": "a", "labeled_at": "then"}
        assert (merged.added, merged.confirmed, merged.changed) == (0, 1, [])

    def test_changed_label_is_reported(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0)])
        assert merged.rows[0]["label"] == "0" and merged.rows[0]["note"] == "mine"
        assert merged.changed == ["msg_id '1': 'positive' is now 0, by a at then"]

    def test_labels_of_an_audit_are_marked(self):
        checked = replace(self.label("1", 0), is_ground_truth=True)
        merged = merge(COLUMNS, ROWS, [checked, self.label("9", 1)])
        by_id = {row["msg_id"].strip(): row for row in merged.rows}
        assert merged.columns[-1] == "ground_truth"
        assert by_id["1"]["ground_truth"] == "1"
        assert not by_id["9"].get("ground_truth")
        assert "ground_truth" not in merge(COLUMNS, ROWS, [self.label("1", 0)]).columns

    def test_row_with_another_text_is_unchanged(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0, "edited since")])
        assert merged.rows == ROWS
        assert merged.other_text == ["1"]

    def test_texts_are_compared_without_spaces(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0, " text\n1")])
        assert merged.rows[0]["msg"] == "text 1" and merged.changed

    def test_new_rows_get_the_subset_train(self):
        rows = [row | {"subset": "test"} for row in ROWS]
        merged = merge([*COLUMNS, "subset"], rows, [self.label("3", 1)])
        assert [row["subset"] for row in merged.rows] == ["test", "test", "train"]


class TestAgreement:
    def decided(self, *pairs: tuple[str, str], times: int = 5) -> list[Decision]:
        return [
            decision(f"{number}", "1", a=vote(first), b=vote(second))
            for number, (first, second) in enumerate(pairs * times)
        ]

    def test_kappa_of_two_annotators(self):
        pairs = ("positive", "positive"), ("negative", "negative"), ("positive", "negative")
        [pair] = agreements(self.decided(*pairs))
        assert (pair.first, pair.second, pair.common) == ("a", "b", 15)
        assert pair.same == pytest.approx(2 / 3)
        assert pair.kappa == pytest.approx(0.4)  # (2/3 - 4/9) / (1 - 4/9)

    def test_too_few_messages_give_no_agreement(self):
        assert agreements(self.decided(("1", "1"), times=9)) == []

    def test_kappa_of_a_single_label_is_nan(self):
        [pair] = agreements(self.decided(("1", "1"), times=10))
        assert pair.same == 1 and pair.kappa != pair.kappa


class TestOtherMessages:
    """Chats number their messages alike, so a file of another chat has the same identifiers."""

    LABELS = tuple(Label(row["msg_id"], "another text", 1, "a", "then") for row in ROWS)

    def test_file_of_another_chat_is_refused(self, tmp_path):
        merged = merge(COLUMNS, ROWS, self.LABELS)
        with pytest.raises(InvalidLabels, match="of 2 labelled here and there, 2 have"):
            refuse_other_messages(merged, tmp_path / "labels.csv")

    def test_a_few_edited_messages_are_not_refused(self, tmp_path):
        labels = [Label("1", "text 1", 1, "a", "then"), self.LABELS[1]]
        merged = merge(COLUMNS, ROWS, labels)
        refuse_other_messages(merged, tmp_path / "labels.csv")  # raises nothing
        assert merged.other_text == [self.LABELS[1].msg_id]


def test_sample_has_projects_of_its_own():
    titles = {
        project_title(is_sample=is_sample, is_audit=is_audit)
        for is_sample in (False, True)
        for is_audit in (False, True)
    }
    assert titles == {TITLE, "feedsieve audit", "feedsieve sample", "feedsieve sample audit"}


class TestTask:
    def test_prediction_is_text_beside_the_message(self):
        task = make_task(Item("1", "text", 0.125, "some:tag"), is_audit=False)
        assert task["data"]["prediction"] == "prediction: negative, score 0.12 by some:tag"
        assert (
            make_task(Item("1", "text"), is_audit=False)["data"]["prediction"] == "prediction: none"
        )

    def test_prediction_of_an_audit_is_above_its_reason(self):
        item = Item("1", "text", 0.75, "held out", reason="doubted")
        data = make_task(item, is_audit=True)["data"]
        assert data["reason"] == "prediction: positive, score 0.75 by held out\ndoubted"

    def test_screen_shows_the_prediction(self):
        screen = ElementTree.parse(ROOT / "labeling" / "config.xml")
        assert screen.find("Text[@name='prediction']").get("value") == "$prediction"


def test_missing_sdk_is_named(tmp_path):
    """Where feedsieve is installed without the extra `label`."""
    write_csv(tmp_path / "batch.csv", ["msg_id", "msg"], ["1", "text"])
    code = "import runpy, sys; sys.modules['label_studio_sdk'] = None\n"
    code += (
        "sys.argv[1:] = ['push', 'batch.csv']; runpy.run_module('labeling', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LABEL_STUDIO_API_KEY": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "labeling: Label Studio's SDK is not installed; `pip install" in done.stderr


class TestStoredLabels:
    def export(self, *choices: str, is_audit: bool = False) -> Export:
        results = [
            [{"from_name": "label", "to_name": "msg", "value": {"choices": [choice]}}]
            for choice in choices
        ]
        annotations = [
            {"completed_by": number, "updated_at": f"2026-01-0{number}T00:00:00Z", "result": result}
            for number, result in enumerate(results, 1)
        ]
        task = {"id": 9, "data": {"msg_id": "1", "msg": "text 1"}, "annotations": annotations}
        return Export(project_title(is_audit=is_audit), is_audit, "http://studio", [task])

    def test_labels_have_annotators_and_times(self):
        names = {"1": "a@example.org"}
        first, second = stored_labels(self.export("positive", "1"), names, ReadReport())
        assert (first.who, first.label, first.origin) == ("a@example.org", "positive", STUDIO)
        assert first.time == datetime(2026, 1, 1, tzinfo=UTC)
        assert second.who == "2" and not second.is_ground_truth

    def test_audit_is_ground_truth(self, tmp_path):
        store = MessageStore.open(tmp_path / "store.db")
        store.add([Message("1", "text 1", "chat")])
        for export in (
            self.export("positive", "positive", "positive"),
            self.export("negative", is_audit=True),
        ):
            store.import_labels(stored_labels(export, {"1": "a"}, ReadReport()), "name:studio")
        assert [(each.message.id, each.label) for each in store.labels()] == [("1", "negative")]
        store.close()

    def test_unknown_choice_names_the_project(self):
        with pytest.raises(InvalidLabels, match="project 'feedsieve' at http://studio: .*'unsure'"):
            stored_labels(self.export("unsure"), {}, ReadReport())


class TestBatch:
    def test_batch_round_trip(self, tmp_path):
        items = [Item("1", 'a "text"\nof two lines', 0.25, "some:tag"), Item("2", "b")]
        write_batch(items, tmp_path / "batch.csv")
        assert read_batch(tmp_path / "batch.csv") == items

    def test_problems_are_named_by_line(self, tmp_path):
        path = write_csv(
            tmp_path / "b.csv", ["msg_id", "msg", "score"], ["1", "a", "2"], ["", "b", ""]
        )
        with pytest.raises(
            InvalidBatch, match="line 2: score is '2', not from 0 to 1; line 3: msg_id"
        ):
            read_batch(path)

    def test_missing_columns_are_named(self, tmp_path):
        path = write_csv(tmp_path / "b.csv", ["number", "msg"], ["1", "a"])
        with pytest.raises(InvalidBatch, match="missing columns: msg_id"):
            read_batch(path)


class TestConfig:
    @pytest.mark.parametrize("name", ["config.xml", "audit.xml"])
    def test_configuration_shows_plain_text_only(self, name):
        """No tag that renders HTML or makes links is used."""
        root = ElementTree.parse(ROOT / "labeling" / name).getroot()
        assert {element.tag for element in root.iter()} == {"View", "Text", "Choices", "Choice"}
        assert {text.get("valueType") for text in root.iter("Text")} == {"text"}
        assert {choice.get("value"): choice.get("hotkey") for choice in root.iter("Choice")} == {
            "positive": "1",
            "negative": "2",
        }


class TestUnavailable:
    """Exit code 1 and one line on stderr."""

    def error(self, done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        [line] = done.stderr.splitlines()
        return line

    def test_missing_token_is_reported(self, tmp_path):
        error = self.error(labeling("pull", "l.csv", home=tmp_path))
        assert "no API token: LABEL_STUDIO_API_KEY is not set and .labelstudio/token" in error

    def test_missing_server_is_reported(self, tmp_path):
        url = f"http://127.0.0.1:{free_port()}"
        done = labeling("pull", "l.csv", "--url", url, home=tmp_path, LABEL_STUDIO_API_KEY="x" * 40)
        assert f"Label Studio at {url} cannot be reached" in self.error(done)
        assert not (tmp_path / "l.csv").exists()

    def test_missing_program_is_reported(self, tmp_path):
        command = [sys.executable, "-m", "labeling.server", "--program", "none"]
        done = subprocess.run(
            [*command, "--data", tmp_path / "d"], cwd=ROOT, capture_output=True, text=True
        )
        assert "none does not exist; `make labelstudio` installs it" in self.error(done)
        assert not (tmp_path / "d").exists()
