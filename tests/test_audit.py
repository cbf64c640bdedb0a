import csv
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from label_errors import OFFER, audited, labelled, with_copies
from serving import ROOT

from feedsieve.text import fingerprint
from train.audit import InvalidScores, formulas, main, read_views, write_csv
from train.data.labelled import read_labeled
from train.evaluation.label_audit import COLUMNS


class TestCSV:
    TEXTS = (
        '=HYPERLINK("http://example.org", "look")',
        "+ balcony",
        "-5 percent",
        "@everyone",
        "two\nlines, and\r\nthree\rfour",
        'he said "no", and left',
        " spaces around ",
        "'quoted'",
        "NaN",
        "Сдаётся квартира 🏠",
        "[1]",
        "\ta tab",
    )

    def suspicious(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return 24 messages with odd texts and wrong labels, and 96 that are sound."""
        wrong = range(0, 120, 5)
        frame, scores = labelled(120, flipped=tuple(wrong))
        frame.loc[wrong, "msg"] = [f"{text} {part}" for part in "ab" for text in self.TEXTS]
        frame.loc[wrong, "msg_id"] = [f"00{number}" for number in range(24)]
        scores[wrong] = np.where(frame["label"][wrong] == 1, 0.02, 0.98)
        return frame, scores

    def test_read_labeled_reads_it_back(self, tmp_path):
        frame, scores = self.suspicious()
        table = audited(frame, scores)[:24]
        assert table["msg_id"].str.startswith("00").all()
        write_csv(table, tmp_path / "audit.csv")
        back = read_labeled(tmp_path / "audit.csv")
        pd.testing.assert_frame_equal(
            back, table[["msg_id", "msg", "label"]].reset_index(drop=True), check_dtype=False
        )
        original = frame.set_index("msg_id").loc[back["msg_id"]]
        assert back["msg"].tolist() == original["msg"].tolist()
        assert back["label"].tolist() == original["label"].tolist()

    def test_cells_are_formatted(self, tmp_path):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text, 0, 0.123456789))
        write_csv(audited(frame, scores), tmp_path / "audit.csv")
        with (tmp_path / "audit.csv").open(encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == COLUMNS
        by_id = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
        assert by_id["c1"]["msg"] == text
        assert by_id["c1"]["score"] == "0.123457"
        assert by_id["c1"]["wrong"] == "0.5000"
        assert by_id["c1"]["related"] == "c0"
        assert float(rows[-1][header.index("wrong_so_far")]) >= 1

    def test_clean_labels_give_a_header_only(self, tmp_path):
        frame, scores = labelled()
        scores = np.where(frame["label"] == 1, 0.99, 0.01)
        write_csv(audited(frame, scores), tmp_path / "deep" / "audit.csv")
        [line] = (tmp_path / "deep" / "audit.csv").read_text("utf-8-sig").splitlines()
        assert line.split(",") == COLUMNS

    def test_formulas_are_counted(self):
        table = audited(*self.suspicious())
        assert formulas(table[:24]) == 2 * 4
        assert formulas(table.assign(msg_id="-100", msg="text")) == len(table)

    def test_failed_write_keeps_the_old_file(self, tmp_path):
        path = tmp_path / "audit.csv"
        path.write_text("before")
        table = audited(*labelled(flipped=(3,)))
        table["msg"] = "\ud800"  # has no UTF-8 form
        with pytest.raises(UnicodeEncodeError):
            write_csv(table, path)
        assert [place.name for place in tmp_path.iterdir()] == ["audit.csv"]
        assert path.read_text() == "before"


def held_out(path, frame, scores, **columns):
    table = pd.DataFrame({"msg_id": frame["msg_id"], "fold": 0, "score": scores, **columns})
    table.to_csv(path, index=False)
    return path


class TestReadsScores:
    def test_scores_are_in_the_order_of_the_messages(self, tmp_path):
        frame, scores = labelled()
        path = held_out(tmp_path / "scores.csv", frame[::-1], scores[::-1])
        assert read_views(path, frame)["score"] == pytest.approx(scores)

    def test_identifiers_are_text_and_other_columns_ignored(self, tmp_path):
        frame, scores = labelled()
        frame["msg_id"] = [f"0{number}" for number in range(59)] + ["NA"]
        path = held_out(tmp_path / "a.csv", frame, scores, label=frame["label"], text="=1, \n2")
        assert read_views(path, frame)["score"] == pytest.approx(scores)

    def test_message_without_a_score_is_nan(self, tmp_path):
        frame, scores = labelled()
        path = held_out(tmp_path / "scores.csv", frame[1:], scores[1:])
        assert np.isnan(read_views(path, frame)["score"]).tolist() == [True] + [False] * 59

    def test_changed_text_is_rejected(self, tmp_path):
        frame, scores = labelled()
        fingerprints = frame["msg"].map(fingerprint)
        path = held_out(tmp_path / "scores.csv", frame, scores, fingerprint=fingerprints)
        assert read_views(path, frame)["score"] == pytest.approx(scores)
        frame.loc[7, "msg"] = "another text"
        with pytest.raises(InvalidScores, match="text has changed since .* in 1 row.*'m7'"):
            read_views(path, frame)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not CSV in UTF-8"),
            (b"msg_id,score\n\xff,0.5\n", "not CSV in UTF-8"),
            (b'msg_id,score\n"m1,0.5\n', "not CSV in UTF-8"),
            (b"msg_id,score\nm1,0.5\nm2,0.5,7\n", "not CSV in UTF-8"),
            (b"id,score\nm1,0.5\n", "missing columns: msg_id (the file has 'id'; 'score')"),
            (b"msg_id,label\nm1,1\n", "missing columns: score"),
            (b"msg_id,score\n", "the file has no scores"),
            (b"msg_id,score\nm1,0.5\n m1 ,0.5\n", "given before in 1 row(s): 'm1'"),
            (
                b"msg_id,score\nm1,0.5\nx9,0.5\n",
                "not among the labelled messages in 1 row(s): 'x9'",
            ),
            (b"msg_id,score\nm1\n", "not a number between 0 and 1, of msg_id in 1 row(s): 'm1'"),
            (b"msg_id,score\nm1,high\nm2,nan\nm3,1.5\nm4,-1\n", "in 4 row(s): 'm1'; 'm2'; 'm3'"),
        ],
    )
    def test_invalid_files_are_rejected(self, tmp_path, content, message):
        path = tmp_path / "scores.csv"
        path.write_bytes(content)
        with pytest.raises(InvalidScores) as caught:
            read_views(path, labelled()[0])
        assert message in str(caught.value)
        assert str(path) in str(caught.value)


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path, capsys):
        """Run the command on `data.csv` and `scores.csv`; return status, stdout and stderr."""

        def run(*more: str) -> tuple[int, str, str]:
            files = ["--data", "data.csv", "--scores", "scores.csv", "--out", "audit.csv"]
            given = [name if name[0] == "-" else str(tmp_path / name) for name in (*files, *more)]
            status = main(given)
            return status, *capsys.readouterr()

        frame, scores = labelled(flipped=(3, 11, 31))
        frame.to_csv(tmp_path / "data.csv", index=False)
        held_out(tmp_path / "scores.csv", frame, scores)
        return run

    def test_command_prints_a_summary(self, run, tmp_path):
        status, printed, _ = run()
        assert status == 0
        pattern = r"of (\d+) labels may be wrong; about (\d+) of them are"
        [(audited, wrong)] = re.findall(pattern, printed)
        assert audited == "60"
        assert 2 <= int(wrong) <= 6
        assert "\n0 have near-duplicates with the other label" in printed
        assert f"see {tmp_path / 'audit.csv'}" in printed
        assert "formula" not in printed
        table = pd.read_csv(tmp_path / "audit.csv")
        assert set(table["msg_id"][:3]) == {"m3", "m11", "m31"}
        expected = table["wrong"].cumsum()
        assert table["wrong_so_far"].tolist() == pytest.approx(expected.tolist(), abs=0.06)

    def test_count_lists_the_first_ones(self, run, tmp_path):
        status, printed, _ = run("--count=2")
        assert status == 0
        assert "the first 2 are listed" in printed
        assert set(pd.read_csv(tmp_path / "audit.csv")["msg_id"]) < {"m3", "m11", "m31"}

    def test_checked_labels_are_not_listed(self, run, tmp_path):
        frame, _ = labelled(flipped=(3, 11, 31))
        frame.assign(ground_truth=frame["msg_id"] == "m11").replace({True: "1", False: ""}).to_csv(
            tmp_path / "data.csv", index=False
        )
        _, printed, _ = run()
        assert "1 of the labels were checked before and are not listed" in printed
        assert "m11" not in set(pd.read_csv(tmp_path / "audit.csv")["msg_id"])

    def test_command_counts_conflicts_and_formulas(self, run, tmp_path):
        text = "-" + OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text, 0, 0.1))
        frame.to_csv(tmp_path / "data.csv", index=False)
        held_out(tmp_path / "scores.csv", frame, scores)
        _, printed, _ = run()
        assert "\n2 have near-duplicates with the other label" in printed
        assert "2 of its rows have text that begins with = + - @" in printed

    def test_command_counts_messages_without_a_score(self, run, tmp_path):
        frame, scores = labelled(flipped=(3, 11, 31))
        held_out(tmp_path / "scores.csv", frame[:40], scores[:40])
        _, printed, _ = run()
        assert "20 of 60 messages have no score and are not audited" in printed
        assert "of 40 labels may be wrong; about" in printed

    def test_existing_file_is_kept_without_force(self, run, tmp_path):
        (tmp_path / "audit.csv").write_text("precious")
        status, _, error = run()
        assert status == 1
        assert "was not changed" in error
        assert (tmp_path / "audit.csv").read_text() == "precious"
        assert run("--force")[0] == 0
        assert (tmp_path / "audit.csv").read_text() != "precious"

    @pytest.mark.parametrize("name", ["data.csv", "scores.csv"])
    def test_inputs_are_never_replaced(self, run, tmp_path, name):
        before = (tmp_path / name).read_bytes()
        status, _, error = run("--out", name, "--force")
        assert status == 1
        assert "is an input" in error
        assert (tmp_path / name).read_bytes() == before

    @pytest.mark.parametrize("name", ["data.csv", "scores.csv"])
    def test_missing_file_is_reported(self, run, tmp_path, name):
        (tmp_path / name).unlink()
        status, _, error = run()
        assert status == 1
        assert f"{name}: " in error
        assert "No such file" in error
        assert not (tmp_path / "audit.csv").exists()

    def test_scores_of_other_messages_are_rejected(self, run, tmp_path):
        frame, scores = labelled()
        held_out(tmp_path / "scores.csv", frame.assign(msg_id="x" + frame["msg_id"]), scores)
        status, _, error = run()
        assert status == 1
        assert "not among the labelled messages in 60 row(s): 'xm0'" in error
        assert "and 55 more" in error

    def test_scores_of_one_label_are_rejected(self, run, tmp_path):
        frame, scores = labelled()
        held_out(tmp_path / "scores.csv", frame[6::3], scores[6::3])
        status, _, error = run()
        assert status == 1
        assert "scores.csv: an audit needs labels 0 and 1" in error

    def test_module_has_help(self):
        done = subprocess.run(
            [sys.executable, "-m", "train.audit", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0
        assert "HELD_OUT.csv" in done.stdout
