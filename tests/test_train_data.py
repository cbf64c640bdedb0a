import numpy as np
import pandas as pd
import pytest
from labelled_files import complaint, sentences, table, write_csv

from train.data.labelled import read_labeled
from train.data.split import data_fingerprint


class TestReadsCSV:
    def test_columns_types_and_order(self, tmp_path):
        frame = read_labeled(write_csv(tmp_path / "a.csv", table()))
        assert list(frame.columns) == ["msg_id", "msg", "label"]
        assert frame["msg_id"].tolist() == [f"m{number}" for number in range(30)]
        assert frame["msg"].tolist() == sentences(30)
        assert frame["label"].dtype == np.int64
        assert frame["label"].sum() == 10

    def test_identifiers_and_texts_stay_text(self, tmp_path):
        rows = table()
        rows[0] |= {"msg_id": "007", "msg": "NaN"}
        rows[1] |= {"msg_id": "1.0", "msg": "null"}
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
        assert frame["msg_id"].tolist()[:2] == ["007", "1.0"]
        assert frame["msg"].tolist()[:2] == ["NaN", "null"]

    @pytest.mark.parametrize(
        ("written", "label"),
        [("1.0", 1), ("Positive", 1), (" 1 ", 1), ("POSITIVE", 1), ("0.0", 0), ("negative", 0)],
    )
    def test_labels_are_read_in_every_spelling(self, tmp_path, written, label):
        rows = table()
        rows[4]["label"] = written
        assert read_labeled(write_csv(tmp_path / "a.csv", rows))["label"][4] == label

    def test_byte_order_mark_is_ignored(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table(), encoding="utf-8-sig")
        assert list(read_labeled(path).columns) == ["msg_id", "msg", "label"]

    def test_subset_is_read_and_other_columns_ignored(self, tmp_path):
        rows = [
            row | {"channel": "x", "subset": "Test" if number % 2 else "train"}
            for number, row in enumerate(table())
        ]
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
        assert list(frame.columns) == ["msg_id", "msg", "label", "subset"]
        assert frame["subset"].tolist()[:2] == ["train", "test"]

    def test_adjudicated_labels_are_read_and_empty_ones_are_the_label(self, tmp_path):
        rows = [row | {"adjudicated": ""} for row in table()]
        rows[0]["adjudicated"] = "negative" if rows[0]["label"] == "1" else "positive"
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
        differs = frame["adjudicated"] != frame["label"]
        assert differs.tolist() == [True] + [False] * (len(rows) - 1)

    def test_invalid_adjudicated_label_is_reported(self, tmp_path):
        rows = [row | {"adjudicated": "1"} for row in table()]
        rows[7]["adjudicated"] = "perhaps"
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "adjudicated not 0, 1, positive" in message
        assert "line 9, msg_id 'm7': 'perhaps'" in message

    def test_checked_labels_are_marked(self, tmp_path):
        rows = [row | {"ground_truth": ""} for row in table()]
        rows[2]["ground_truth"], rows[5]["ground_truth"] = "1", "no"
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
        assert np.flatnonzero(frame["ground_truth"]).tolist() == [2]
        plain = read_labeled(write_csv(tmp_path / "b.csv", table()))
        assert data_fingerprint(plain) != data_fingerprint(frame)
        assert data_fingerprint(plain) == data_fingerprint(frame.assign(ground_truth=False))
        rows[7]["ground_truth"] = "perhaps"
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "ground_truth not 0, 1, positive" in message

    def test_label_times_are_read(self, tmp_path):
        times = ["2024-05-01T12:00:00+03:00", "2024-05-01 09:00", " 2024-05-01T09:00:00Z ", ""]
        rows = [row | {"labeled_at": times[number % 4]} for number, row in enumerate(table())]
        read = read_labeled(write_csv(tmp_path / "a.csv", rows))["labeled_at"]
        moment = pd.Timestamp("2024-05-01T09:00:00Z")
        assert read.iloc[:3].tolist() == [moment] * 3
        assert pd.isna(read.iloc[3])

    @pytest.mark.parametrize("time", ["yesterday", "1714550400", "0001-01-01T00:00:00+03:00"])
    def test_invalid_time_is_reported(self, tmp_path, time):
        rows = [row | {"labeled_at": "2024-05-01"} for row in table()]
        rows[7]["labeled_at"] = time
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "labeled_at not a time such as" in message
        assert f"line 9, msg_id 'm7': {time!r}" in message

    def test_blank_subset_is_ignored(self, tmp_path):
        rows = [row | {"subset": ""} for row in table()]
        assert "subset" not in read_labeled(write_csv(tmp_path / "a.csv", rows))

    def test_texts_are_storable(self, tmp_path):
        rows = table()
        rows[0]["msg"] = "a\x00b"
        assert read_labeled(write_csv(tmp_path / "a.csv", rows))["msg"][0] == "ab"

    def test_blank_lines_are_ignored(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table())
        path.write_text(path.read_text().replace("\n", "\n\n"))
        assert len(read_labeled(path)) == 30


class TestRejects:
    def test_all_problems_are_reported_with_line_numbers(self, tmp_path):
        rows = table()
        rows[0]["msg"] = "two\nlines"  # line 2 and 3
        rows[2]["label"] = "maybe"  # line 5
        rows[3]["msg"] = " \u200b\n"  # lines 6 and 7
        rows[5]["msg_id"] = "m1"  # line 9
        rows[6]["msg_id"] = " "
        for row in rows:
            row["subset"] = "train"
        rows[7]["subset"] = "dev"
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "line 5, msg_id 'm2': 'maybe'" in message
        assert "line 6, msg_id 'm3'" in message
        assert "line 9, msg_id 'm1'" in message
        assert "line 10" in message
        assert "line 11, msg_id 'm7': 'dev'" in message

    def test_five_rows_are_named_and_the_others_counted(self, tmp_path):
        rows = table()
        for row in rows[:12]:
            row["label"] = "x" * 500
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert message.count("xxx'") + message.count("…'") == 5
        assert "12 row(s)" in message
        assert "and 7 more" in message
        assert "x" * 100 not in message

    def test_value_cannot_forge_a_log_line(self, tmp_path):
        rows = table()
        rows[0]["label"] = "x\nERROR forged \x1b[31m"
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "\nERROR" not in message
        assert "\x1b" not in message

    def test_missing_columns_are_reported_with_those_present(self, tmp_path):
        rows = [{"number": row["msg_id"], "label": row["label"]} for row in table()]
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "missing columns: msg_id, msg " in message
        assert "'label'" in message

    def test_missing_column_does_not_hide_bad_labels(self, tmp_path):
        rows = [{"msg": row["msg"], "label": "2"} for row in table()]
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "missing columns: msg_id" in message
        assert "line 2: '2'" in message

    @pytest.mark.parametrize(("label", "name"), [("0", "positive"), ("1", "negative")])
    def test_only_one_label_is_rejected(self, tmp_path, label, name):
        path = write_csv(tmp_path / "a.csv", [row | {"label": label} for row in table()])
        assert f"only one label: no row is {name}" in complaint(path)

    def test_too_few_rows_of_a_label_are_rejected(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table(every=10))
        assert "too few positive rows: 3, and at least 5 are needed" in complaint(path)

    def test_too_few_rows_are_rejected(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table(19))
        assert "too few rows: 19, and at least 20 are needed" in complaint(path)
        assert len(read_labeled(write_csv(tmp_path / "b.csv", table(20)))) == 20

    def test_subset_without_positives_is_rejected(self, tmp_path):
        rows = [row | {"subset": "train" if row["label"] == "1" else "test"} for row in table()]
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert "subset test needs rows of both labels" in message

    def test_rows_of_the_wrong_width_are_reported(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table())
        path.write_text(path.read_text() + "m90,text, with comma,1\n")
        assert "rows of other than 3 fields: line 32 has 4" in complaint(path)

    def test_repeated_column_is_reported(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table())
        path.write_text(path.read_text().replace("msg_id,msg,label", "msg,msg,label"))
        assert "columns given twice: 'msg'" in complaint(path)

    def test_unclosed_quote_is_reported(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", table())
        path.write_text(path.read_text() + 'm90,"never closed,1\n')
        assert "line 32: expected CSV; the quote that opens here is not closed" in complaint(path)

    def test_other_encoding_is_reported(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes("msg_id,msg,label\n1,привет,1\n".encode("koi8-r"))
        assert "line 2: expected UTF-8 text; byte 0xd0 is" in complaint(path)

    @pytest.mark.parametrize("content", [b"", b" \n\n"])
    def test_empty_file_is_rejected(self, tmp_path, content):
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        assert "the file is empty" in complaint(path)

    def test_header_alone_is_rejected(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("msg_id,msg,label\n")
        assert "too few rows: 0" in complaint(path)

    def test_unreadable_file_is_reported(self, tmp_path):
        assert "cannot be read: No such file" in complaint(tmp_path / "absent.csv")
        assert "cannot be read" in complaint(tmp_path)

    @pytest.mark.parametrize(
        "content", ["[1, 2", "{}", "[3]", '[{"annotations": [], "id": 4}]', "[" * 100_000]
    )
    def test_broken_json_is_rejected(self, tmp_path, content):
        path = tmp_path / "a.json"
        path.write_text(content)
        assert "cannot train on this" in complaint(path)


def frame_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(table(count, every=2)).astype({"label": int})


class TestSources:
    def test_identifiers_of_several_sources_are_told_apart(self, tmp_path):
        rows = [row | {"source": f"name:{number % 2}"} for number, row in enumerate(table())]
        rows[1]["msg_id"] = "m0"
        frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
        assert frame["msg_id"].tolist()[:3] == ["name:0:m0", "name:1:m0", "m2"]


class TestFingerprint:
    def test_fingerprint_ignores_the_order(self):
        frame = frame_of(10)
        assert data_fingerprint(frame) == data_fingerprint(frame.sample(frac=1, random_state=1))
        assert len(data_fingerprint(frame)) == 32

    def test_fingerprint_depends_on_every_cell(self):
        frame = frame_of(4)
        others = [frame.copy() for _ in range(4)]
        others[0].loc[0, "msg_id"] = "x"
        others[1].loc[0, "msg"] += "."
        others[2].loc[0, "label"] = 0
        others[3] = pd.concat([frame, frame.iloc[:1]])
        assert len({data_fingerprint(other) for other in [frame, *others]}) == 5

    def test_fingerprint_separates_identifier_and_text(self):
        left = pd.DataFrame({"msg_id": ["1"], "msg": ["2x"], "label": [0]})
        right = pd.DataFrame({"msg_id": ["12"], "msg": ["x"], "label": [0]})
        assert data_fingerprint(left) != data_fingerprint(right)


class TestCorpus:
    def test_real_corpus_is_valid(self, corpus):
        assert len(corpus) > 1000
        assert 0.05 < corpus["label"].mean() < 0.5
