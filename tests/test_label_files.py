"""Files of labels, read by `feedsieve labels import`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import CORPUS
from label_exports import (
    NO,
    PLAIN,
    TEXTS,
    TIME,
    YES,
    annotation,
    as_csv,
    as_lines,
    result,
    row,
    studio_row,
    task,
    written,
)

from feedsieve.message import InvalidFile
from feedsieve.sources.labels.files import Defaults, read_labels
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.report import ReadReport

CASES = CORPUS.parents[1] / "field-cases" / "ls"


def read(path: Path, **words: bool) -> tuple[list[LabelledMessage], ReadReport]:
    report = ReadReport()
    return read_labels(path, report, Defaults("me", path.name, words)), report


def labels(path: Path, **words: bool) -> list[tuple]:
    found, _report = read(path, **words)
    return [(each.message.id, each.label, each.who) for each in found]


BOTH = [("1", "positive", "1"), ("2", "negative", "1")]
OF_ME = [("1", "positive", "me"), ("2", "negative", "me")]

READ = {
    "tasks": ([task(1, YES), task(2, NO)], BOTH),
    "one task": (task(1, YES), BOTH[:1]),
    "tasks as JSON Lines": (as_lines(task(1, YES), task(2, NO)), BOTH),
    "a task twice": ([task(1, YES), task(1, YES), task(2, NO, NO)], BOTH),
    "completions": (
        [
            {"id": 1, "data": row(1, ""), "completions": [annotation("positive", created_at=1)]},
            {"id": 2, "data": row(2, ""), "completions": [{"skipped": True, "result": []}]},
        ],
        BOTH[:1],
    ),
    "a file of a target storage": (
        {**YES, "task": {"id": 1, "data": {"msg_id": "1", "msg": TEXTS[0]}}},
        BOTH[:1],
    ),
    "such files as JSON Lines": (
        as_lines(*({**NO, "task": {"id": n, "data": row(n, "")}} for n in (1, 2))),
        [("1", "negative", "1"), ("2", "negative", "1")],
    ),
    "yes and no": ([task(1, annotation("Yes")), task(2, annotation("NO"))], BOTH),
    "Russian words": ([task(1, annotation("Да")), task(2, annotation("нет"))], BOTH),
    "other keys": (
        [task(1, YES, data={"message": "a", "message_id": 1}), task(2, NO, data=row(2, ""))],
        BOTH,
    ),
    "null results": ([task(1, YES), task(2, annotation(result=None)), task(3)], BOTH[:1]),
    "a cancelled annotation": (
        [task(1, YES, annotation("negative", was_cancelled=True))],
        BOTH[:1],
    ),
    "no annotations at some tasks": ([task(1, YES), {"id": 2, "data": row(2, "")}], BOTH[:1]),
    "a taxonomy": (
        [task(1, annotation(result=[result(["positive"], kind="taxonomy")])), task(2, NO)],
        BOTH,
    ),
    "a path in a taxonomy": (
        [task(1, annotation(result=[result(["вещи", "positive"], kind="taxonomy")]))],
        BOTH[:1],
    ),
    "a person as object and as number": (
        [task(1, annotation("1", by={"id": 4, "email": "a@b.c"})), task(2, annotation("0", by=4))],
        [("1", "positive", "a@b.c"), ("2", "negative", "a@b.c")],
    ),
    "people who are not named": (
        [task(1, annotation("positive", by=None), annotation("negative", by=None))],
        [("1", "positive", "me"), ("1", "negative", "me (2)")],
    ),
    "tasks without identifiers": (
        [task(1, YES, data={"text": TEXTS[0]})],
        [("", "positive", "1")],
    ),
    "JSON-MIN": (
        [studio_row(1, "positive"), studio_row(1, "negative", "b@c.d")],
        [("1", "positive", "1"), ("1", "negative", "b@c.d")],
    ),
    "JSON-MIN with objects": ([studio_row(1, {"choices": ["positive"]})], BOTH[:1]),
    "Label Studio's CSV": (as_csv(studio_row(1, "positive"), studio_row(2, "negative")), BOTH),
    "Label Studio's TSV": (as_csv(studio_row(1, "positive"), delimiter="\t"), BOTH[:1]),
    "the same with another name": (
        as_csv({**studio_row(1, "?"), "mood": "positive"}).replace("label", "reason"),
        BOTH[:1],
    ),
    "doccano": (
        as_lines(
            {"id": 7, "text": "а", "label": ["positive"]}, {"id": 8, "text": "б", "label": []}
        ),
        [("", "positive", "me")],
    ),
    "JSON rows": (list(PLAIN), OF_ME),
    "JSON Lines": (as_lines(*PLAIN), OF_ME),
    "true and false in JSON": ([row(1, True), row(2, False)], OF_ME),
    "CSV": (as_csv(*PLAIN), OF_ME),
    "semicolons": (as_csv(*PLAIN, delimiter=";"), OF_ME),
    "other names in capitals": (as_csv(*PLAIN).replace("msg_id,msg,label", "ID,TEXT,Label"), OF_ME),
    "floats": (
        as_csv(row(1, "1.0"), row(2, "0.0")).replace("1,П", "1.0,П").replace("2,", "2.0,"),
        OF_ME,
    ),
    "empty labels": (as_csv(row(1, ""), row(2, "0"), row(3, "nan")), OF_ME[1:]),
    "people in a column": (
        as_csv(row(1, "1", annotator="вера"), row(2, "0", annotator="")),
        [("1", "positive", "вера"), ("2", "negative", "me")],
    ),
    "people of a majority": (
        as_csv(row(1, "1", annotator="a@b.c d@e.f", labeled_at=TIME)),
        [("1", "positive", "a@b.c"), ("1", "positive", "d@e.f")],
    ),
    "rows twice": (as_csv(*PLAIN, *PLAIN), OF_ME),
    "a withdrawn label": (as_csv(row(1, "withdrawn")), [("1", None, "me")]),
}

REFUSED = {
    "several choices": ([task(1, annotation("positive", "negative"))], "several choices"),
    "choices in two results": (
        [task(1, annotation(result=[result("positive"), result("negative")]))],
        "several choices in place of one label: row 1, msg_id '1'",
    ),
    "several choices in JSON-MIN": (
        [studio_row(1, {"choices": ["positive", "negative"]}), studio_row(2, "negative")],
        "keep one of them, in Label Studio or in the file",
    ),
    "unknown words": (
        [task(1, annotation("интересно")), task(2, annotation("скучно"))],
        "positive, negative, true, false, yes, no, да or нет, not as in row 1, msg_id '1':"
        " 'интересно'; row 2, msg_id '2': 'скучно'; change it, or say what it means with"
        " --positive WORD or --negative WORD",
    ),
    "predictions and drafts": (
        [task(1, predictions=[{"result": [result("positive")]}]), task(2, drafts=[{"id": 3}])],
        "predictions and drafts are not labels: submit annotations in Label Studio",
    ),
    "no label at all": (as_csv(row(1, ""), row(2, "")), "no row has a label (without a label: 2)"),
    "no column of labels": (as_csv({"msg_id": 1, "msg": "a"}), "there is no label in 'msg_id,msg'"),
    "no text": (as_csv({"msg_id": 1, "label": 1}), "there is no text in 'msg_id,label'"),
    "no text in tasks": ([task(1, YES, data={"image": "a.png"})], "there is no text in 'image'"),
    "no choices": (
        [task(1, annotation(result=[result("x", kind="labels")]))],
        "no column holds labels",
    ),
    "numbers of annotations": (
        [{"id": 1, "data": row(1, ""), "annotations": [12]}],
        "row 1 has numbers of annotations only; export the project as JSON",
    ),
    "a chat": ({"name": "Соседи", "messages": []}, "the file is an object with 'name'; 'messages'"),
    "a list of texts": (["a", "b"], "row 1 is not a task: 'a'"),
    "two labels of one person": (
        as_csv(row(1, "1"), row(1, "0")),
        "two labels for one message: line 2 and line 3, msg_id '1'",
    ),
    "a column twice": ("msg_id,msg,msg,label\n1,a,b,1\n", "column 'msg' is there twice"),
    "identifiers that a spreadsheet has shortened": (
        "msg_id,msg,label\n1.23457E+17,a,1\n",
        "line 2: msg_id '1.23457E+17' has lost its digits",
    ),
    "a time that is none": (
        as_csv(row(1, "1", labeled_at="вчера")),
        "line 2: expected a time in ISO 8601",
    ),
    "JSON that is cut short": (as_lines(*PLAIN)[:-20], "the file is cut short"),
    "JSON that is none": ('{"msg_id": 1, msg: 2}', "line 1: expected JSON"),
    "an empty file": (" \n", "the file is empty"),
}


class TestRead:
    @pytest.mark.parametrize("kind", READ)
    def test_labels_are_read_of(self, tmp_path, kind):
        content, expected = READ[kind]
        assert labels(written(tmp_path / "labels", content)) == expected

    @pytest.mark.parametrize("kind", REFUSED)
    def test_file_is_refused_in_one_line_with(self, tmp_path, kind):
        content, reason = REFUSED[kind]
        path = written(tmp_path / "labels", content)
        with pytest.raises(InvalidFile) as caught:
            read(path)
        message = str(caught.value)
        assert reason in message
        assert message.startswith(str(path)) and "\n" not in message

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("content", [as_csv(*PLAIN), as_lines(*PLAIN)], ids=["CSV", "JSON"])
    def test_encoding_is_detected(self, tmp_path, encoding, content):
        assert labels(written(tmp_path / "labels", content, encoding)) == OF_ME

    def test_words_of_the_user_are_labels(self, tmp_path):
        path = written(
            tmp_path / "l", [task(1, annotation("Годится")), task(2, annotation("мимо"))]
        )
        assert labels(path, годится=True, мимо=False) == BOTH

    def test_studio_labels_have_time_origin_and_ground_truth(self, tmp_path):
        tasks = [task(1, annotation("positive", ground_truth=True)), task(2, NO)]
        found, _report = read(written(tmp_path / "l.json", tasks))
        assert [(each.origin, each.is_ground_truth) for each in found] == [
            ("label-studio", True),
            ("label-studio", False),
        ]
        assert found[0].time == datetime(2026, 1, 5, 10, tzinfo=UTC)

    def test_csv_has_sources_times_and_notes(self, tmp_path):
        more = {"source": "rss:http://a/", "who": "вера", "time": TIME, "note": "ок", "extra": "x"}
        found, report = read(written(tmp_path / "l.csv", as_csv(row(1, "1", **more))))
        [label] = found
        assert (label.message.source, label.message.time) == ("rss:http://a/", None)
        assert (label.who, label.time) == ("вера", datetime(2026, 1, 5, 10, tzinfo=UTC))
        assert (label.note, label.origin) == ("ок", "l.csv")
        assert report.notes == ["columns not used: 'extra'"]

    def test_time_is_that_of_the_message_where_nobody_is_named(self, tmp_path):
        found, _report = read(written(tmp_path / "l", as_csv(row(1, "1", channel="Ч", time=TIME))))
        assert found[0].time is None
        assert found[0].message.time == datetime(2026, 1, 5, 10, tzinfo=UTC)
        assert (found[0].message.channel, found[0].message.source) == ("Ч", "name:Ч")

    def test_left_out_rows_are_counted(self, tmp_path):
        rows = as_csv(*PLAIN, PLAIN[0], row(3, "")) + "4,,1\n"
        _found, report = read(written(tmp_path / "l", rows))
        assert report.skipped == {"repeated": 1, "without a label": 1, "without text": 1}
