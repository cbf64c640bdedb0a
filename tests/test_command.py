"""The `feedsieve` command, run as users run it."""

import csv
import subprocess
from pathlib import Path

import pytest
from python_process import run_python
from serving import ROOT
from test_service import OFFER

from feedsieve import __version__, score_command
from feedsieve.__main__ import main


@pytest.fixture
def feedsieve(environment, tmp_path):
    """Run the command in an empty folder, with its own store and the trained model."""

    def run(*arguments, **settings) -> subprocess.CompletedProcess[str]:
        store = {"FEEDSIEVE_DB": str(tmp_path / "own.db"), "PYTHONPATH": str(ROOT)}
        variables = {**environment, **store, "PATH": "", **settings}
        return run_python("-m", "feedsieve", *arguments, cwd=tmp_path, env=variables)

    return run


def write_csv(path: Path, *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


class TestImport:
    def test_second_import_of_the_sample_changes_nothing(self, feedsieve, sample):
        done = feedsieve("import", sample / "messages.db")
        assert done.returncode == 0, done.stderr
        assert "SQLite chat dump, " in done.stdout
        assert "4,000 new, 0 changed, 0 known already" in done.stdout
        assert "now has 4,000 messages" in done.stdout
        again = feedsieve("import", sample / "messages.db")
        assert "0 new, 0 changed, 4,000 known already" in again.stdout

    def test_file_of_another_format_is_rejected(self, feedsieve, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("these are notes\n")
        done = feedsieve("import", path)
        assert done.returncode == 1
        assert "expected an SQLite chat dump" in done.stderr
        assert "Traceback" not in done.stderr

    def test_damaged_file_stores_nothing(self, feedsieve, tmp_path):
        good = [[str(number), f"text {number}"] for number in range(2000)]
        path = write_csv(tmp_path / "broken.csv", ["msg_id", "msg"], *good, ["one field"])
        done = feedsieve("import", path)
        assert done.returncode == 1
        assert "line 2002" in done.stderr
        whole = write_csv(tmp_path / "whole.csv", ["msg_id", "msg"], ["1", "text"])
        assert "now has 1 messages" in feedsieve("import", whole).stdout

    def test_store_that_is_a_folder_fails(self, feedsieve, sample, tmp_path):
        done = feedsieve("import", sample / "messages.db", FEEDSIEVE_DB=str(tmp_path))
        assert done.returncode == 1
        assert "a folder, not a file" in done.stderr

    def test_invalid_setting_is_named(self, feedsieve, sample):
        done = feedsieve("import", sample / "messages.db", FEEDSIEVE_THREADS="many")
        assert done.returncode == 1
        assert "FEEDSIEVE_THREADS" in done.stderr
        assert "Traceback" not in done.stderr


class TestScore:
    TEXTS = (OFFER, 'He said "no",\nand left', "")

    def test_columns_score_and_label_are_added(self, feedsieve, tmp_path):
        rows = [[str(number), text, "kept"] for number, text in enumerate(self.TEXTS)]
        source = write_csv(tmp_path / "in.csv", ["msg_id", "msg", "note"], *rows)
        done = feedsieve("score", source, tmp_path / "out.csv")
        assert done.returncode == 0, done.stderr
        header, *scored = read_csv(tmp_path / "out.csv")
        assert header == ["msg_id", "msg", "note", "score", "label"]
        assert [row[:3] for row in scored] == rows
        assert all(0 < float(row[3]) < 1 for row in scored)
        assert [row[4] for row in scored] == ["positive", "negative", "negative"]
        assert "3 scored by feedsieve-classifier:" in done.stdout

    def test_scores_equal_those_of_the_server(self, feedsieve, server, tmp_path):
        items = server.client.get("/feed?limit=50").json()["items"]
        source = write_csv(tmp_path / "in.csv", ["msg"], *[[item["text"]] for item in items])
        backend = server.client.get("/version").json()["backend"]["backend"]
        feedsieve("score", source, tmp_path / "out.csv", FEEDSIEVE_BACKEND=backend)
        scores = [float(row[-2]) for row in read_csv(tmp_path / "out.csv")[1:]]
        assert scores == pytest.approx([item["score"] for item in items], abs=1e-4)

    def test_column_and_names_are_chosen_and_notes_printed(self, feedsieve, small_home, tmp_path):
        source = tmp_path / "in.csv"
        source.write_bytes("msg;Отзыв;label\r\n7;Отдам кота;1\r\n".encode("cp1251"))
        target = tmp_path / "out.csv"
        options = ["--column", "Отзыв", "--names", "p,guess"]
        done = feedsieve("score", source, target, *options, BENTOML_HOME=str(small_home))
        assert done.returncode == 0, done.stderr
        header, row = target.read_bytes().decode("cp1251").splitlines()
        assert header == "msg;Отзыв;label;p;guess"
        assert row.startswith("7;Отдам кота;1;0.")
        for note in ("encoding: cp1251", "delimiter: semicolon"):
            assert f"{source}: {note}\n" in done.stdout
        done = feedsieve("score", source, target, "--force", BENTOML_HOME=str(small_home))
        assert "has a column label already" in done.stderr

    def test_target_is_replaced_only_with_force(self, feedsieve, small_home, tmp_path):
        model = {"BENTOML_HOME": str(small_home)}
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        target = tmp_path / "out.csv"
        target.write_text("precious")
        done = feedsieve("score", source, target, **model)
        assert done.returncode == 1
        assert "was not replaced" in done.stderr
        assert target.read_text() == "precious"
        assert feedsieve("score", source, target, "--force", **model).returncode == 0
        assert len(read_csv(target)) == 2
        assert feedsieve("score", source, source, "--force", **model).returncode == 1
        assert read_csv(source) == [["msg"], ["text"]]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            (b"note\nhello\n", "expected CSV with a column msg"),
            (b"msg,score\nhello,1\n", "has a column score already"),
            (b"msg,note\nhello\n", "line 2: expected 2 fields"),
            (b"msg\n\xff\xfe\n", "expected UTF-8"),
            (b'msg\n"open\n', "expected CSV"),
        ],
    )
    def test_bad_file_is_rejected_and_nothing_written(
        self, feedsieve, small_home, tmp_path, content, reason
    ):
        (tmp_path / "in.csv").write_bytes(content)
        paths = tmp_path / "in.csv", tmp_path / "out.csv"
        done = feedsieve("score", *paths, BENTOML_HOME=str(small_home))
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.glob("*out.csv*")] == []

    def test_missing_file_is_named(self, feedsieve, tmp_path):
        (tmp_path / "out.csv").write_text("")
        done = feedsieve("score", tmp_path / "in.csv", tmp_path / "out.csv", "--force")
        assert done.returncode == 1
        assert "in.csv: No such file" in done.stderr

    @pytest.mark.parametrize("tag", ["Bad Tag!", "feedsieve-encoder:latest", "nothing:here"])
    def test_tag_of_no_classifier_is_rejected(self, feedsieve, tmp_path, tag):
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        done = feedsieve("score", source, tmp_path / "out.csv", FEEDSIEVE_MODEL=tag)
        assert done.returncode == 1
        assert "the model store has no" in done.stderr or "is no classifier" in done.stderr
        assert "Traceback" not in done.stderr

    def test_missing_model_says_how_to_train_one(self, feedsieve, tmp_path):
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        done = feedsieve("score", source, tmp_path / "out.csv", BENTOML_HOME=str(tmp_path))
        assert done.returncode == 1
        assert "make train" in done.stderr


class TestUsage:
    def test_help_names_the_formats_and_the_settings(self, capsys):
        assert main(["--help"]) == 0
        assert "FEEDSIEVE_DB" in capsys.readouterr().out
        assert main(["import", "--help"]) == 0
        assert "result.json" in capsys.readouterr().out
        assert main(["score", "--help"]) == 0
        assert "--cluster WHERE" in capsys.readouterr().out
        assert main(["watch", "--help"]) == 0
        assert "FEEDSIEVE_TELEGRAM_TOKEN_FILE" in capsys.readouterr().out

    def test_version_is_printed(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"feedsieve {__version__}\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            *([], ["nonsense"], ["watch"], ["import"], ["score", "in.csv"]),
            ["score", "in.csv", "out.csv", "--fast"],
            ["score", "in.csv", "out.csv", "--names", "score"],
            ["score", "in.csv", "out.csv", "--names", "a,b,c"],
            ["score", "in.csv", "out.csv", "--names", "label,Label"],
        ],
    )
    def test_usage_error_exits_with_2(self, arguments, capsys):
        assert main(arguments) == 2
        assert "Usage: feedsieve" in capsys.readouterr().err

    def test_failure_is_one_line_and_exits_with_1(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["score", "none.csv", "out.csv"]) == 1
        assert capsys.readouterr().err == "feedsieve: none.csv: No such file or directory\n"

    def test_ctrl_c_exits_with_130(self, monkeypatch, capsys):
        def interrupt(*_arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(score_command, "check_paths", interrupt)
        assert main(["score", "in.csv", "out.csv"]) == 130
        assert capsys.readouterr().err.strip() == "feedsieve: interrupted"
