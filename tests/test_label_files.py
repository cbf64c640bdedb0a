"""Files of labels, read by `feedsieve labels import`."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import CORPUS

from feedsieve.message import InvalidFile
from feedsieve.sources.labelled_message import LabelledMessage
from feedsieve.sources.labels import Defaults, read_labels
from feedsieve.sources.report import ReadReport

CASES = CORPUS.parents[1] / "field-cases" / "ls"
TIME = "2026-01-05T10:00:00Z"
TEXTS = ("Продам велосипед", "Кто потерял ключи?", "Урок гитары в субботу")


def result(*choices: str, name: str = "label", kind: str = "choices") -> dict:
    value = {kind: list(choices)}
    return {"value": value, "from_name": name, "to_name": "msg", "type": kind}


def annotation(*choices: str, by: object = 1, **more) -> dict:
    results = [result(*choices)] if choices else []
    times = {"created_at": TIME, "updated_at": TIME}
    return {"completed_by": by, "result": results, "was_cancelled": False, **times, **more}


def task(number: int, *annotations: dict, data: dict | None = None, **more) -> dict:
    data = data or {"msg_id": f"{number}", "msg": TEXTS[number - 1]}
    return {"id": 500 + number, "data": data, "annotations": list(annotations), **more}


def row(number: int, label: object, **more) -> dict:
    return {"msg_id": f"{number}", "msg": TEXTS[number - 1], "label": label, **more}


def studio_row(number: int, label: object, by: object = 1) -> dict:
    return row(number, label, id=500 + number, annotator=by, annotation_id=9, updated_at=TIME)


def as_csv(*rows: dict, delimiter: str = ",") -> str:
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    return "\n".join(lines) + "\n"


def as_lines(*documents: object) -> str:
    return "\n".join(json.dumps(document, ensure_ascii=False) for document in documents) + "\n"


def written(path: Path, content: object, encoding: str = "utf-8") -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    return path


def read(path: Path, **words: bool) -> tuple[list[LabelledMessage], ReadReport]:
    report = ReadReport()
    return read_labels(path, report, Defaults("me", path.name, words)), report


def labels(path: Path, **words: bool) -> list[tuple]:
    found, _report = read(path, **words)
    return [(each.message.id, each.label, each.who) for each in found]


YES, NO = annotation("positive"), annotation("negative")
BOTH = [("1", "positive", "1"), ("2", "negative", "1")]
OF_ME = [("1", "positive", "me"), ("2", "negative", "me")]
PLAIN = row(1, "1"), row(2, "0")

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


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch, capsys):
        """Run `feedsieve labels` on a store of its own; return exit code, output and errors."""
        from feedsieve.__main__ import main
        from feedsieve.settings import settings

        def call(*arguments: object, store: str = "store.db") -> tuple[int, str, str]:
            monkeypatch.setenv("FEEDSIEVE_DB", str(tmp_path / store))
            settings.cache_clear()
            code = main(["labels", *map(str, arguments)])
            return code, *capsys.readouterr()

        yield call
        settings.cache_clear()

    def test_second_import_changes_nothing(self, run, tmp_path):
        path = written(tmp_path / "labels.csv", as_csv(*PLAIN, row(3, "")))
        code, output, _errors = run("import", path)
        assert code == 0
        assert output == (
            f"{path}: 2 labels new, 0 known; skipped: without a label (1); 2 messages added\n"
        )
        assert "0 labels new, 2 known" in run("import", path)[1]

    def test_bad_file_does_not_keep_the_others_out(self, run, tmp_path):
        bad = written(tmp_path / "bad.csv", as_csv(row(1, "интересно")))
        good = written(tmp_path / "good.csv", as_csv(*PLAIN))
        code, output, errors = run("import", bad, good)
        assert code == 1
        assert f"{good}: 2 labels new" in output
        reason, summary = errors.splitlines()
        assert reason.startswith(f"feedsieve: {bad}: a label is one of 0, 1, positive")
        assert summary == f"feedsieve: not imported: {bad}"

    def test_words_and_people_are_options(self, run, tmp_path):
        path = written(tmp_path / "l.csv", as_csv(row(1, "Годится"), row(2, "мимо")))
        options = "--positive", "годится", "--negative", "мимо", "--who", "вера"
        assert run("import", path, *options)[0] == 0
        run("export", tmp_path / "out.csv")
        rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
        assert [(each["label"], each["who"]) for each in rows] == [
            ("positive", "вера"),
            ("negative", "вера"),
        ]

    def test_source_is_an_option(self, run, tmp_path):
        path = written(tmp_path / "l.csv", as_csv(*PLAIN))
        run("import", path, "--source", "Соседи")
        run("export", tmp_path / "out.csv")
        rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
        assert {each["source"] for each in rows} == {"name:Соседи"}

    def test_export_of_a_store_makes_the_same_one(self, run, tmp_path):
        one, two = {"who": "вера", "time": TIME}, {"who": "олег", "time": TIME}
        text = 'Строка "одна",\r\nи вторая'
        rows = [row(1, "1", **one), row(1, "0", **two), row(2, "withdrawn", **one)]
        path = tmp_path / "l.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows([*rows, row(3, "1", **one) | {"msg": text}])
        assert "4 labels new" in run("import", path)[1]
        out, again = tmp_path / "out.csv", tmp_path / "again.csv"
        assert run("export", out)[1] == f"{out}: 4 labels\n"
        assert "0 labels new, 4 known; 0 messages added" in run("import", out)[1]
        assert "4 labels new" in run("import", out, store="other.db")[1]
        run("export", again, store="other.db")
        assert out.read_bytes() == again.read_bytes()
        assert text.encode().replace(b'"', b'""') in out.read_bytes()

    def test_resolved_export_has_a_row_for_each_message(self, run, tmp_path):
        people = ({"who": name, "time": TIME} for name in ("анна", "вера", "олег"))
        anna, vera, oleg = people
        rows = row(1, "1", **anna), row(1, "0", **vera), row(1, "1", **oleg)
        tied = row(2, "1", **anna), row(2, "0", **vera)
        run("import", written(tmp_path / "l.csv", as_csv(*rows, *tied)))
        out = tmp_path / "out.csv"
        assert (
            "1 messages; left out 1 messages on which people are tied"
            in (run("export", out, "--resolved")[1])
        )
        [only] = csv.DictReader(out.open(encoding="utf-8"))
        assert (only["msg_id"], only["label"], only["who"]) == ("1", "positive", "анна, олег")

    def test_agreement_of_two_people_is_printed(self, run, tmp_path):
        people = {"вера": "1100", "олег": "1010", "анна": "1"}
        rows = [
            {"msg_id": n, "msg": f"т{n}", "label": label, "who": who, "time": TIME}
            for who, given in people.items()
            for n, label in enumerate(given)
        ]
        run("import", written(tmp_path / "l.csv", as_csv(*rows)))
        code, output, _errors = run("agreement")
        assert code == 0
        assert "вера and олег agree on 50% of 4 messages, Cohen's kappa 0.00" in output
        assert "анна and олег agree on 100% of 1 messages, Cohen's kappa undefined" in output
        assert "4 messages are labelled; people are tied on 2" in output
        document = json.loads(run("agreement", "--json")[1])
        assert (document["messages"], document["tied"], len(document["pairs"])) == (4, 2, 3)

    def test_files_of_a_folder_are_one_source(self, run, tmp_path):
        (tmp_path / "storage").mkdir()
        for number in (1, 2):
            data = {"msg_id": f"{number}", "msg": TEXTS[number]}
            document = {**YES, "task": {"id": number, "data": data}}
            written(tmp_path / "storage" / f"{number}", document)
        code, output, _errors = run("import", tmp_path / "storage")
        assert code == 0
        assert f"{tmp_path / 'storage'}/2: 1 labels new" in output
        run("export", tmp_path / "out.csv")
        rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
        assert {each["source"] for each in rows} == {"file:storage"}

    def test_missing_file_is_named(self, run, tmp_path):
        code, _output, errors = run("import", tmp_path / "none.csv")
        assert code == 1
        assert errors == f"feedsieve: {tmp_path / 'none.csv'}: No such file or directory\n"

    @pytest.mark.skipif(not CASES.is_dir(), reason="no field cases")
    def test_field_cases_are_imported_or_refused_in_one_line(self, run):
        refused = {"l07", "l10", "l11", "l15", "l27"}
        for path in sorted(CASES.iterdir()):
            code, output, errors = run("import", path)
            assert code == (path.name[:3] in refused), path
            if code:
                [line] = errors.splitlines()
                assert line.startswith(f"feedsieve: {path}: ")
            else:
                assert output.startswith(f"{path}: ") and not errors
