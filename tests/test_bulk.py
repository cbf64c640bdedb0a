import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from limits import largest_file

from feedsieve import score_command
from feedsieve.__main__ import main
from feedsieve.bulk import tables
from feedsieve.bulk.score_file import InProcess, score_file
from feedsieve.bulk.tables import Part
from feedsieve.files import AlreadyRunning, UnwritableFile, one_run_at_a_time
from feedsieve.message import InvalidFile
from feedsieve.scoring.model_store import load_scorer
from feedsieve.scoring.scorer import Scorer

TEXTS = [f"Сдаётся квартира {n}, Лимассол" if n % 2 else f"Hello, {n}\n@all" for n in range(25)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_A_PART", 10)


@pytest.fixture(scope="module")
def scorer(trained_tag) -> Scorer:
    return load_scorer(trained_tag, 1)


@pytest.fixture(scope="module")
def scores(scorer) -> np.ndarray:
    return scorer.score(TEXTS)


class Interrupted(InProcess):
    """Is interrupted after some parts, and records which it scored."""

    def __init__(self, scorer: Scorer, after: int = 1_000_000) -> None:
        super().__init__(scorer)
        self._after = after
        self.scored: list[int] = []

    def score_parts(self, parts: Iterable[Part], progress) -> Iterator[tuple[Part, np.ndarray]]:
        for part, scores in super().score_parts(parts, progress):
            if len(self.scored) == self._after:
                raise KeyboardInterrupt
            self.scored.append(part.number)
            yield part, scores


def write_csv(path: Path, texts: list[str] = TEXTS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "msg"], *([n, text] for n, text in enumerate(texts))])
    return path


def write_parquet(path: Path, texts: list[str | None]) -> Path:
    columns = {"msg": pyarrow.array(texts, pyarrow.string()), "id": list(range(len(texts)))}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def write(folder: Path, name: str) -> Path:
    return (write_csv if name.endswith("csv") else write_parquet)(folder / name, TEXTS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parts_of(target: Path) -> list[str]:
    return sorted(path.name for path in target.with_name(f"{target.name}.parts").glob("[0-9]*"))


class TestFormats:
    def test_csv_gets_scores_and_labels(self, scorer, scores, tmp_path):
        target = tmp_path / "out.csv"
        positives, rows = score_file(InProcess(scorer), write_csv(tmp_path / "in.csv"), target)
        with target.open(encoding="utf-8", newline="") as file:
            header, *written = csv.reader(file)
        assert header == ["id", "msg", "score", "label"]
        assert [row[:2] for row in written] == [[str(n), text] for n, text in enumerate(TEXTS)]
        assert [float(row[2]) for row in written] == pytest.approx(scores, abs=1e-6)
        labels = [row[3] for row in written]
        assert labels == [scorer.label(score) for score in scores]
        assert (positives, rows) == (labels.count("positive"), 25)
        assert names(tmp_path) == ["in.csv", "out.csv"]

    def test_parquet_gets_scores_and_labels(self, scorer, scores, tmp_path):
        source = write_parquet(tmp_path / "in.parquet", [*TEXTS, None])
        target = tmp_path / "out.parquet"
        positives, rows = score_file(InProcess(scorer), source, target)
        written = pyarrow.parquet.read_table(target)
        assert written.drop_columns(["score", "label"]) == pyarrow.parquet.read_table(source)
        expected = [*scores, *scorer.score([""])]
        assert written["score"].to_pylist() == pytest.approx(expected, abs=1e-9)
        assert (positives, rows) == (written["label"].to_pylist().count("positive"), 26)

    @pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
    def test_file_without_rows_gets_the_columns(self, scorer, tmp_path, name):
        write_to = write_csv if name.endswith("csv") else write_parquet
        source = write_to(tmp_path / name, [])
        target = source.with_stem("out")
        assert score_file(InProcess(scorer), source, target) == (0, 0)
        if name.endswith("csv"):
            assert target.read_bytes() == b"id,msg,score,label\r\n"
        else:
            assert pyarrow.parquet.read_schema(target).names == ["msg", "id", "score", "label"]

    def test_different_formats_are_rejected(self, scorer, tmp_path):
        source = write_csv(tmp_path / "in.csv")
        with pytest.raises(UnwritableFile, match="must both be"):
            score_file(InProcess(scorer), source, tmp_path / "out.parquet")

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"note": ["a"]}, "expected Parquet with a column msg"),
            ({"msg": ["a"], "label": ["b"]}, "has a column label already"),
            ({"msg": [1]}, "column msg is int64, not string"),
        ],
    )
    def test_unsuitable_parquet_is_rejected(self, scorer, tmp_path, columns, reason):
        source = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), source)
        with pytest.raises(InvalidFile, match=reason):
            score_file(InProcess(scorer), source, tmp_path / "out.parquet")
        assert names(tmp_path) == ["in.parquet"]

    def test_spaces_around_column_names_are_ignored(self, scorer, scores, tmp_path):
        source, target = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
        source.write_text(source.read_text().replace("id,msg", "id , msg", 1))
        score_file(InProcess(scorer), source, target)
        with target.open(encoding="utf-8", newline="") as file:
            header, *written = csv.reader(file)
        assert header == ["id", "msg", "score", "label"]
        assert [float(row[2]) for row in written] == pytest.approx(scores, abs=1e-6)

    def test_categories_and_null_columns_are_read(self, scorer, scores, tmp_path):
        source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
        categories = pyarrow.array(TEXTS).dictionary_encode()
        pyarrow.parquet.write_table(pyarrow.table({"msg": categories}), source)
        score_file(InProcess(scorer), source, target)
        written = pyarrow.parquet.read_table(target)
        assert written["score"].to_pylist() == pytest.approx(scores, abs=1e-9)
        assert written["msg"].to_pylist() == TEXTS
        pyarrow.parquet.write_table(pyarrow.table({"msg": pyarrow.nulls(0)}), source)
        assert score_file(InProcess(scorer), source, target, replace=True) == (0, 0)

    def test_file_that_is_not_parquet_is_rejected(self, scorer, tmp_path):
        source = write_csv(tmp_path / "in.parquet")
        with pytest.raises(InvalidFile, match="expected Parquet"):
            score_file(InProcess(scorer), source, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
class TestResuming:
    def test_interrupted_run_resumes(self, scorer, tmp_path, name):
        source = write(tmp_path, name)
        whole, target = source.with_stem("whole"), source.with_stem("out")
        counts = score_file(InProcess(scorer), source, whole)
        with pytest.raises(KeyboardInterrupt):
            score_file(Interrupted(scorer, after=2), source, target)
        assert parts_of(target) == ["000000", "000001"]
        assert not target.exists()
        second, done = Interrupted(scorer), []
        assert score_file(second, source, target, done.append) == counts
        assert second.scored == [2]
        assert sum(done) == 25
        assert target.read_bytes() == whole.read_bytes()
        assert not target.with_name(f"{target.name}.parts").exists()

    def test_parts_of_another_model_are_rejected(self, scorer, tmp_path, name):
        source = write(tmp_path, name)
        target = source.with_stem("out")
        with pytest.raises(KeyboardInterrupt):
            score_file(Interrupted(scorer, after=1), source, target)
        other = Interrupted(Scorer(scorer.encoder, scorer.classifier, "another:one"))
        with pytest.raises(UnwritableFile, match=r"out.*\.parts has scores of another file"):
            score_file(other, source, target)
        assert parts_of(target) == ["000000"]
        score_file(other, source, target, replace=True)
        assert other.scored == [0, 1, 2]

    def test_parts_with_another_cascade_setting_are_rejected(self, scorer, tmp_path, name):
        source = write(tmp_path, name)
        target = source.with_stem("out")
        with pytest.raises(KeyboardInterrupt):
            score_file(Interrupted(scorer, after=1), source, target)
        other = Interrupted(scorer)
        other.cascade = not other.cascade
        with pytest.raises(UnwritableFile, match="with another FEEDSIEVE_CASCADE"):
            score_file(other, source, target)

    def test_other_files_in_the_folder_are_kept(self, scorer, tmp_path, name):
        source = write(tmp_path, name)
        target = source.with_stem("out")
        folder = target.with_name(f"{target.name}.parts")
        folder.mkdir()
        (folder / "20261126.txt").write_text("mine")
        (folder / ".000000.1").write_text("cut short")
        score_file(InProcess(scorer), source, target, replace=True)
        assert names(folder) == ["20261126.txt"]

    def test_parts_of_a_changed_file_are_rejected(self, scorer, tmp_path, name):
        source = write(tmp_path, name)
        target = source.with_stem("out")
        with pytest.raises(KeyboardInterrupt):
            score_file(Interrupted(scorer, after=1), source, target)
        os.utime(source, ns=(0, 0))
        with pytest.raises(UnwritableFile, match="of another file"):
            score_file(InProcess(scorer), source, target)


class TestCommand:
    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            (["none.csv", "out.csv"], "none.csv: No such file"),
            (["in.csv", "in.csv"], "is the file to read"),
            (["in.csv", "there.csv"], "exists and was not replaced"),
            (["in.csv", "folder/out.parquet"], "must both be CSV or both be Parquet"),
        ],
    )
    def test_files_are_checked_before_a_model_is_loaded(
        self, tmp_path, monkeypatch, capsys, files, reason
    ):
        monkeypatch.setattr(score_command, "load_scorer", None)
        monkeypatch.chdir(tmp_path)
        write_csv(tmp_path / "in.csv")
        (tmp_path / "there.csv").write_text("mine")
        assert main(["score", *files]) == 1
        assert reason in capsys.readouterr().err
        assert names(tmp_path) == ["in.csv", "there.csv"]


class TestFailing:
    def test_bad_row_keeps_the_parts_before_it(self, scorer, tmp_path):
        source = write_csv(tmp_path / "in.csv")
        source.write_text(source.read_text() + "one field\n")
        target = tmp_path / "out.csv"
        with pytest.raises(InvalidFile, match="expected 2 fields"):
            score_file(InProcess(scorer), source, target)
        assert parts_of(target) == ["000000", "000001"]
        assert not target.exists()

    def test_full_disk_keeps_scored_parts(self, scorer, tmp_path):
        source, target = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
        target.write_text("old")
        with largest_file(1000), pytest.raises(UnwritableFile, match=r"out\.csv: File too large"):
            score_file(InProcess(scorer), source, target, replace=True)
        assert parts_of(target) == ["000000", "000001", "000002"]
        assert target.read_text() == "old"
        assert score_file(Interrupted(scorer, after=0), source, target, replace=True)[1] == 25

    def test_second_run_with_one_target_is_rejected(self, scorer, tmp_path):
        source, target = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
        folder = tmp_path / "out.csv.parts"
        with one_run_at_a_time(folder):
            with pytest.raises(AlreadyRunning, match=r"out\.csv\.parts"):
                score_file(InProcess(scorer), source, target)
            assert folder.exists()

    def test_parts_are_read_one_at_a_time(self, scorer, tmp_path):
        """Memory does not grow with the file."""
        source, target = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
        kept = []

        class Watching(InProcess):
            def score_parts(self, parts, progress):
                def watched():
                    for part in parts:
                        kept.append(len(parts_of(target)))
                        yield part

                return super().score_parts(watched(), progress)

        score_file(Watching(scorer), source, target)
        assert kept == [0, 1, 2]


def test_run_file_names_model_and_source(scorer, tmp_path):
    source, target = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        score_file(Interrupted(scorer, after=1), source, target)
    run = json.loads((tmp_path / "out.csv.parts" / "run.json").read_text())
    assert run["model"] == scorer.model
    assert run["source"] == str(source)
