"""`feedsieve labels`: import, export and agreement."""

import csv
import json

import pytest
from conftest import CORPUS
from label_exports import (
    PLAIN,
    TEXTS,
    TIME,
    YES,
    as_csv,
    row,
    written,
)

CASES = CORPUS.parents[1] / "field-cases" / "ls"


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

    def test_blank_source_is_none(self, run, tmp_path):
        blank = written(
            tmp_path / "l.csv", as_csv(row(1, "1", source="  "), row(2, "0", source=""))
        )
        run("import", blank, "--source", "  ")
        run("export", tmp_path / "out.csv")
        rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
        assert {each["source"] for each in rows} == {"file:l"}

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
