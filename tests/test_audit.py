import csv
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from serving import ROOT

from feedsieve.text import fingerprint
from train.audit import (
    COLUMNS,
    MOST_RELATED,
    BadScores,
    audit,
    formulas,
    main,
    read_scores,
    suspects,
    what_if,
    write_csv,
)
from train.data import near_duplicate_groups, read_labeled

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]
OFFER = "A bright flat by the old harbour, furnished, from {} a month, for a year or longer"


def labelled(count: int = 60, flipped: tuple[int, ...] = ()) -> tuple[pd.DataFrame, np.ndarray]:
    """Return messages of which every third is positive, and scores that know it.

    They are less sure of every fifth. Labels in `flipped` are turned round, the scores are not. No
    two messages are near-duplicates.
    """
    rng = random.Random(0)
    truth = np.arange(count) % 3 == 0
    labels = truth.astype(np.int64)
    labels[list(flipped)] ^= 1
    frame = pd.DataFrame(
        {
            "msg_id": [f"m{number}" for number in range(count)],
            "msg": [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)],
            "label": labels,
        }
    )
    doubt = np.where(np.arange(count) % 5 == 0, 0.3, 0.05)
    doubt += np.random.default_rng(0).uniform(0, 0.02, count)
    return frame, np.where(truth, 1 - doubt, doubt)


def with_copies(*copies: tuple[str, int, float]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return sound messages, and `copies` (text, label, score) after them, named c0, c1, …"""
    frame, scores = labelled()
    texts, labels, own = zip(*copies, strict=True)
    names = [f"c{number}" for number in range(len(copies))]
    more = pd.DataFrame({"msg_id": names, "msg": texts, "label": labels})
    return pd.concat([frame, more], ignore_index=True), np.concatenate([scores, own])


def audited(frame: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    return audit(frame, scores, near_duplicate_groups(frame["msg"].tolist(), progress=False))


class TestByScore:
    def test_flipped_labels_come_first_and_stay_as_they_are(self):
        frame, scores = labelled(flipped=(3, 11, 31))
        table = audited(frame, scores)
        assert list(table.columns) == COLUMNS
        assert set(table["msg_id"][:3]) == {"m3", "m11", "m31"}
        assert table["quality"].is_monotonic_increasing
        first = table[:3]
        assert (first["label"] == frame["label"].iloc[first.index]).all()
        assert (first["suggested_label"] == 1 - first["label"]).all()
        assert first["msg"].tolist() == frame["msg"].iloc[first.index].tolist()
        assert first["score"].tolist() == scores[first.index].tolist()
        assert (first["related"] == "").all()

    def test_quality_is_the_probability_of_the_label(self):
        frame, scores = labelled(flipped=(3, 11))
        table = audited(frame, scores).set_index("msg_id")
        assert table["quality"]["m3"] == pytest.approx(1 - scores[3])
        assert table["quality"]["m11"] == pytest.approx(scores[11])

    def test_clean_labels_give_none(self):
        frame, scores = labelled()
        table = audited(frame, scores)
        assert list(table.columns) == COLUMNS
        assert len(table) == len(suspects(table)) == formulas(table) == 0

    def test_the_reason_names_both_labels(self):
        frame, scores = labelled(flipped=(3, 11))
        scores[3] = 1.0
        [to_positive, to_negative] = audited(frame, scores)["reason"][:2]
        assert to_positive == (
            "labelled negative, but a model that had not seen this label finds positive "
            "99.9% likely"
        )
        assert to_negative.startswith("labelled positive, but")
        assert f"finds negative {1 - scores[11]:.1%} likely" in to_negative

    def test_of_equal_scores_all_are_listed_or_none(self):
        wrong, unsure = [1, 2, 4, 7], [8, 11, 13, 14, 16, 17]
        frame, scores = labelled(flipped=(*wrong, *unsure))
        scores[wrong], scores[unsure] = 0.02, 0.4
        assert audited(frame, scores)["msg_id"].tolist() == ["m1", "m2", "m4", "m7"]

    def test_least_quality_first_whatever_the_reason(self):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.1), (text, 0, 0.01))
        scores[:60] = np.where(scores[:60] > 0.5, 0.6, 0.01)
        frame.loc[0, "label"] = 0
        table = audited(frame, scores)
        assert table["msg_id"].tolist() == ["c0", "m0", "c1"]
        assert table["suggested_label"].tolist() == [pd.NA, 1, pd.NA]

    @pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
    def test_a_model_that_knows_nothing_doubts_one_label_at_most(self, score):
        frame, _ = labelled()
        table = audited(frame, np.full(len(frame), score))
        assert set(table["label"]) <= {int(score < 0.5)}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda labels, scores: (labels, scores[1:]), "of one length"),
            (lambda labels, scores: (labels, scores + 0.5), "between 0 and 1"),
            (lambda labels, scores: (labels, scores * np.nan), "between 0 and 1"),
            (lambda labels, scores: (labels * 0, scores), "both of them"),
            (lambda labels, scores: (labels * 0 + 1, scores), "both of them"),
            (lambda labels, scores: (labels * 2, scores), "no others"),
        ],
    )
    def test_bad_input(self, change, said):
        frame, scores = labelled()
        labels, scores = change(frame["label"].to_numpy(), scores)
        with pytest.raises(ValueError, match=said):
            audit(frame.assign(label=labels), scores, np.arange(len(frame)))


class TestByNearDuplicates:
    def test_the_minority_is_listed_though_its_score_agrees(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.9), (text, 1, 0.9), (text, 0, 0.1)))
        [row] = table.itertuples(index=False)
        assert (row.msg_id, row.label, row.suggested_label) == ("c2", 0, 1)
        assert row.related == "c0 c1"
        assert row.reason == (
            "labelled positive: 2 of 2 near-duplicates, of identical text; "
            "a model that had not seen this label finds negative 90.0% likely"
        )

    def test_a_tie_lists_both_and_suggests_nothing(self):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text.upper() + " ", 0, 0.1))
        table = audited(frame, scores).set_index("msg_id")
        assert table["related"].to_dict() == {"c0": "c1", "c1": "c0"}
        assert table["suggested_label"].isna().all()
        assert table["reason"].str.contains("1 of 1 near-duplicates, of identical text").all()
        assert len(suspects(audited(frame, scores))) == 0

    def test_what_the_score_says_of_a_tie_is_suggested(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.02), (text, 0, 0.02))).set_index("msg_id")
        assert table["suggested_label"]["c0"] == 0
        assert table["suggested_label"].isna()["c1"]
        assert "but a model" in table["reason"]["c0"]
        assert "near-duplicates" in table["reason"]["c0"]

    def test_the_reason_says_where_numbers_alone_differ(self):
        table = audited(*with_copies((OFFER.format(900), 1, 0.9), (OFFER.format(95_000), 0, 0.1)))
        assert len(table) == 2
        assert table["reason"].str.contains("different only in numbers (both", regex=False).all()

    def test_the_nearest_is_named_first(self):
        similar = OFFER.format(900).replace("bright", "sunny")
        table = audited(
            *with_copies(
                (similar, 1, 0.9),
                (OFFER.format(1200), 1, 0.9),
                (OFFER.format(900), 1, 0.9),
                (OFFER.format(900), 0, 0.1),
            )
        )
        [row] = table.itertuples(index=False)
        assert row.related == "c2 c1 c0"
        assert "3 of 3 near-duplicates, 1 of identical text, 1 different only" in row.reason
        assert "1 of similar text (both labels are right if the difference matters)" in row.reason

    def test_of_many_some_are_named_and_all_are_counted(self):
        text = OFFER.format(900)
        copies = [(text, 1, 0.9)] * (MOST_RELATED + 5)
        [row] = audited(*with_copies(*copies, (text, 0, 0.1))).itertuples(index=False)
        assert len(row.related.split()) == MOST_RELATED
        assert f"{MOST_RELATED + 5} of {MOST_RELATED + 5} near-duplicates" in row.reason

    def test_copies_that_agree_are_not_listed(self):
        text = OFFER.format(900)
        assert audited(*with_copies((text, 1, 0.9), (text, 1, 0.9))).empty


class TestWhatIf:
    LABELS = (1, 0, 1, 0)
    SCORES = (0.9, 0.8, 0.2, 0.1)

    def test_by_hand(self):
        rows = what_if(self.LABELS, self.SCORES, [1, 2], 0.5, tops=(1, 2))
        assert [row["flipped"] for row in rows] == [0, 1, 2]
        # 1 0 1 0: one hit of two shown and two positive. 1 1 1 0: two of two shown, of three.
        assert [row["f1"] for row in rows] == pytest.approx([1 / 2, 4 / 5, 1])
        # Of 1 0 1 0 the positives are first and third in rank, of the others they lead.
        assert [row["average_precision"] for row in rows] == pytest.approx([(1 + 2 / 3) / 2, 1, 1])

    def test_what_was_given_is_not_changed(self):
        labels = np.array(self.LABELS)
        what_if(labels, self.SCORES, [1, 2], 0.5)
        assert labels.tolist() == list(self.LABELS)

    @pytest.mark.parametrize(
        ("count", "flipped"), [(0, [0]), (1, [0, 1]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 2, 3])]
    )
    def test_no_more_than_there_are(self, count, flipped):
        labels, scores = [1, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5]
        rows = what_if(labels, scores, range(count), 0.5, tops=(2, 3))
        assert [row["flipped"] for row in rows] == flipped

    @pytest.mark.parametrize("rows", [[1, 1], [4], [-1]])
    def test_suspects_that_are_no_rows(self, rows):
        with pytest.raises(ValueError, match="row numbers below 4"):
            what_if(self.LABELS, self.SCORES, rows, 0.5)


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
        scores[wrong] = 1 - frame["label"][wrong]
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

    def test_all_columns_are_plain(self, tmp_path):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text, 0, 0.123456789))
        write_csv(audited(frame, scores), tmp_path / "audit.csv")
        with (tmp_path / "audit.csv").open(encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == COLUMNS
        assert rows[0][:6] == ["c1", text, "0", "", "0.123457", "0.876543"]
        assert rows[0][7] == "c0"

    def test_no_more_than_the_header_for_clean_labels(self, tmp_path):
        write_csv(audited(*labelled()), tmp_path / "deep" / "audit.csv")
        [line] = (tmp_path / "deep" / "audit.csv").read_text("utf-8-sig").splitlines()
        assert line.split(",") == COLUMNS

    def test_formulas_are_counted(self):
        table = audited(*self.suspicious())
        assert formulas(table) == 2 * 4
        assert formulas(table.assign(msg_id="-100", msg="text")) == len(table)

    def test_whole_or_not_at_all(self, tmp_path):
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
    def test_in_the_order_of_the_messages(self, tmp_path):
        frame, scores = labelled()
        path = held_out(tmp_path / "scores.csv", frame[::-1], scores[::-1])
        assert read_scores(path, frame) == pytest.approx(scores)

    def test_identifiers_stay_text_and_other_columns_are_left(self, tmp_path):
        frame, scores = labelled()
        frame["msg_id"] = [f"0{number}" for number in range(59)] + ["NA"]
        path = held_out(tmp_path / "a.csv", frame, scores, label=frame["label"], text="=1, \n2")
        assert read_scores(path, frame) == pytest.approx(scores)

    def test_a_message_without_a_score(self, tmp_path):
        frame, scores = labelled()
        path = held_out(tmp_path / "scores.csv", frame[1:], scores[1:])
        assert np.isnan(read_scores(path, frame)).tolist() == [True] + [False] * 59

    def test_texts_are_those_that_were_scored(self, tmp_path):
        frame, scores = labelled()
        marks = frame["msg"].map(fingerprint)
        path = held_out(tmp_path / "scores.csv", frame, scores, fingerprint=marks)
        assert read_scores(path, frame) == pytest.approx(scores)
        frame.loc[7, "msg"] = "another text"
        with pytest.raises(BadScores, match="another text was scored .* in 1 row.*'m7'"):
            read_scores(path, frame)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "not CSV in UTF-8"),
            (b"msg_id,score\n\xff,0.5\n", "not CSV in UTF-8"),
            (b'msg_id,score\n"m1,0.5\n', "not CSV in UTF-8"),
            (b"msg_id,score\nm1,0.5\nm2,0.5,7\n", "not CSV in UTF-8"),
            (b"id,score\nm1,0.5\n", "missing columns: msg_id (the file has 'id'; 'score')"),
            (b"msg_id,label\nm1,1\n", "missing columns: score"),
            (b"msg_id,score\n", "there is no score in it"),
            (b"msg_id,score\nm1,0.5\n m1 ,0.5\n", "given before in 1 row(s): 'm1'"),
            (
                b"msg_id,score\nm1,0.5\nx9,0.5\n",
                "not among the labelled messages in 1 row(s): 'x9'",
            ),
            (b"msg_id,score\nm1\n", "not a number between 0 and 1, of msg_id in 1 row(s): 'm1'"),
            (b"msg_id,score\nm1,high\nm2,nan\nm3,1.5\nm4,-1\n", "in 4 row(s): 'm1'; 'm2'; 'm3'"),
        ],
    )
    def test_files_that_do_not_fit(self, tmp_path, content, said):
        path = tmp_path / "scores.csv"
        path.write_bytes(content)
        with pytest.raises(BadScores) as caught:
            read_scores(path, labelled()[0])
        assert said in str(caught.value)
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

    def test_it_says_what_it_found(self, run, tmp_path):
        status, said, _ = run()
        assert status == 0
        assert "3 of 60 labels look wrong, 0 of them beside near-duplicates" in said
        table = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()][1:]
        assert [row[0] for row in table] == ["0", "3"]
        assert table[1][1:] == ["1.0000", "1.0000"]
        assert float(table[0][1]) < 1
        assert "optimistic" in said
        assert f"see {tmp_path / 'audit.csv'}" in said
        assert "formula" not in said
        assert len(pd.read_csv(tmp_path / "audit.csv")) == 3

    def test_conflicts_and_formulas(self, run, tmp_path):
        text = "-" + OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text, 0, 0.1))
        frame.to_csv(tmp_path / "data.csv", index=False)
        held_out(tmp_path / "scores.csv", frame, scores)
        _, said, _ = run()
        assert "2 of 62 labels look wrong, 2 of them beside near-duplicates" in said
        assert "2 of its rows have text that begins with = + - @" in said

    def test_messages_without_a_score_are_counted(self, run, tmp_path):
        frame, scores = labelled(flipped=(3, 11, 31))
        held_out(tmp_path / "scores.csv", frame[:40], scores[:40])
        _, said, _ = run()
        assert "20 of 60 messages have no score and are not audited" in said
        assert "3 of 40 labels look wrong" in said

    def test_nothing_is_replaced_unasked(self, run, tmp_path):
        (tmp_path / "audit.csv").write_text("precious")
        status, _, said = run()
        assert status == 1
        assert "was left as it is" in said
        assert (tmp_path / "audit.csv").read_text() == "precious"
        assert run("--force")[0] == 0
        assert (tmp_path / "audit.csv").read_text() != "precious"

    @pytest.mark.parametrize("name", ["data.csv", "scores.csv"])
    def test_what_is_read_is_never_replaced(self, run, tmp_path, name):
        before = (tmp_path / name).read_bytes()
        status, _, said = run("--out", name, "--force")
        assert status == 1
        assert "is a file to read" in said
        assert (tmp_path / name).read_bytes() == before

    @pytest.mark.parametrize("name", ["data.csv", "scores.csv"])
    def test_a_file_that_is_not_there(self, run, tmp_path, name):
        (tmp_path / name).unlink()
        status, _, said = run()
        assert status == 1
        assert f"{name}: " in said
        assert "No such file" in said
        assert not (tmp_path / "audit.csv").exists()

    def test_scores_of_other_messages(self, run, tmp_path):
        frame, scores = labelled()
        held_out(tmp_path / "scores.csv", frame.assign(msg_id="x" + frame["msg_id"]), scores)
        status, _, said = run()
        assert status == 1
        assert "not among the labelled messages in 60 row(s): 'xm0'" in said
        assert "and 55 more" in said

    def test_scores_of_one_label(self, run, tmp_path):
        frame, scores = labelled()
        held_out(tmp_path / "scores.csv", frame[6::3], scores[6::3])
        status, _, said = run()
        assert status == 1
        assert "scores.csv: an audit needs labels 0 and 1" in said

    def test_it_runs_as_a_module(self):
        done = subprocess.run(
            [sys.executable, "-m", "train.audit", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0
        assert "HELD_OUT.csv" in done.stdout
