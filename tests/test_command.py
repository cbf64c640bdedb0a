"""The command `feedsieve`, as people run it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ROOT
from test_service import OFFER


@pytest.fixture
def feedsieve(environment, tmp_path):
    """Run the command in an empty folder, with a store of its own and the trained model."""

    def run(*arguments, **settings) -> subprocess.CompletedProcess[str]:
        store = {"FEEDSIEVE_DB": str(tmp_path / "own.db"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "feedsieve", *map(str, arguments)],
            cwd=tmp_path,
            env={**environment, **store, "PATH": "", **settings},
            capture_output=True,
            text=True,
        )

    return run


def write_csv(path: Path, *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


class TestImport:
    def test_the_sample_twice(self, feedsieve, sample):
        done = feedsieve("import", sample / "messages.db")
        assert done.returncode == 0, done.stderr
        assert "messages.db: 4,000 new, 0 changed, 0 known already, 0 without text" in done.stdout
        assert "now has 4,000 messages" in done.stdout
        again = feedsieve("import", sample / "messages.db")
        assert "0 new, 0 changed, 4,000 known already" in again.stdout

    def test_a_file_that_is_none_of_the_formats(self, feedsieve, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("these are notes\n")
        done = feedsieve("import", path)
        assert done.returncode == 1
        assert "expected an SQLite chat dump" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_file_that_breaks_off_leaves_nothing_behind(self, feedsieve, tmp_path):
        good = [[str(number), f"text {number}"] for number in range(2000)]
        path = write_csv(tmp_path / "broken.csv", ["msg_id", "msg"], *good, ["one field"])
        done = feedsieve("import", path)
        assert done.returncode == 1
        assert "line 2002" in done.stderr
        whole = write_csv(tmp_path / "whole.csv", ["msg_id", "msg"], ["1", "text"])
        assert "now has 1 messages" in feedsieve("import", whole).stdout

    def test_a_store_that_cannot_be_opened(self, feedsieve, sample, tmp_path):
        done = feedsieve("import", sample / "messages.db", FEEDSIEVE_DB=str(tmp_path))
        assert done.returncode == 1
        assert "a folder, not a file" in done.stderr

    def test_a_setting_that_makes_no_sense(self, feedsieve, sample):
        done = feedsieve("import", sample / "messages.db", FEEDSIEVE_THREADS="many")
        assert done.returncode == 1
        assert "FEEDSIEVE_THREADS" in done.stderr
        assert "Traceback" not in done.stderr


class TestScore:
    TEXTS = (OFFER, 'He said "no",\nand left', "")

    def test_columns_are_added(self, feedsieve, tmp_path):
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

    def test_it_scores_as_the_server_does(self, feedsieve, server, tmp_path):
        items = server.client.get("/feed?limit=50").json()["items"]
        source = write_csv(tmp_path / "in.csv", ["msg"], *[[item["text"]] for item in items])
        feedsieve("score", source, tmp_path / "out.csv")
        scores = [float(row[-2]) for row in read_csv(tmp_path / "out.csv")[1:]]
        assert scores == pytest.approx([item["score"] for item in items], abs=1e-4)

    def test_nothing_is_replaced_unasked(self, feedsieve, tmp_path):
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        target = tmp_path / "out.csv"
        target.write_text("precious")
        done = feedsieve("score", source, target)
        assert done.returncode == 1
        assert "was left as it is" in done.stderr
        assert target.read_text() == "precious"
        assert feedsieve("score", source, target, "--force").returncode == 0
        assert len(read_csv(target)) == 2
        assert feedsieve("score", source, source, "--force").returncode == 1
        assert read_csv(source) == [["msg"], ["text"]]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "the file is empty"),
            (b"text\nhello\n", "expected CSV with a column msg"),
            (b"msg,score\nhello,1\n", "has a column score already"),
            (b"msg,note\nhello\n", "line 2: expected 2 fields"),
            (b"msg\n\xff\xfe\n", "expected UTF-8"),
            (b'msg\n"open\n', "expected CSV"),
        ],
    )
    def test_bad_files(self, feedsieve, tmp_path, content, said):
        (tmp_path / "in.csv").write_bytes(content)
        done = feedsieve("score", tmp_path / "in.csv", tmp_path / "out.csv")
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.glob("*out.csv*")] == []

    def test_a_file_that_is_not_there(self, feedsieve, tmp_path):
        (tmp_path / "out.csv").write_text("")
        done = feedsieve("score", tmp_path / "in.csv", tmp_path / "out.csv", "--force")
        assert done.returncode == 1
        assert "in.csv: No such file" in done.stderr

    @pytest.mark.parametrize("tag", ["Bad Tag!", "feedsieve-encoder:latest", "nothing:here"])
    def test_a_tag_of_no_classifier(self, feedsieve, tmp_path, tag):
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        done = feedsieve("score", source, tmp_path / "out.csv", FEEDSIEVE_MODEL=tag)
        assert done.returncode == 1
        assert "the model store has no" in done.stderr or "is no classifier" in done.stderr
        assert "Traceback" not in done.stderr

    def test_no_model(self, feedsieve, tmp_path):
        source = write_csv(tmp_path / "in.csv", ["msg"], ["text"])
        done = feedsieve("score", source, tmp_path / "out.csv", BENTOML_HOME=str(tmp_path))
        assert done.returncode == 1
        assert "make train" in done.stderr


def test_help_names_the_formats_and_the_settings(feedsieve):
    assert "FEEDSIEVE_DB" in feedsieve("--help").stdout
    assert "result.json" in feedsieve("import", "--help").stdout
