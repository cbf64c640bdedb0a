"""Tables of labels in the dialects and words that people use."""

import logging

import pytest
from labelled_files import complaint, table, write_csv

from train.data.label_tables import read_table
from train.data.labelled import read_labeled

LABELS = [int(row["label"]) for row in table()]


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("1", "0"),
        ("1.0", "0.0"),
        ("TRUE", "FALSE"),
        ("True", "False"),
        ("positive", "Negative"),
        ("Yes", "no"),
        ("Да", "нет"),
        ("ИСТИНА", "ЛОЖЬ"),
    ],
)
def test_words_for_labels_are_read(tmp_path, positive, negative):
    rows = [row | {"label": positive if row["label"] == "1" else negative} for row in table()]
    frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
    assert frame["label"].tolist() == LABELS


@pytest.mark.parametrize("label", ["maybe", "2", "0.5", "[1]", "+", "x"])
def test_other_label_is_refused_with_those_allowed(tmp_path, label):
    rows = table()
    rows[3]["label"] = label
    message = complaint(write_csv(tmp_path / "a.csv", rows))
    assert "label not 0, 1, positive, negative, true, false, yes, no, да or нет in 1 row" in message
    assert f"line 5, msg_id 'm3': {label!r}" in message


@pytest.mark.parametrize("label", ["", " ", "nan", "None", "NULL", "N/A"])
def test_rows_without_label_are_left_out_and_counted(tmp_path, caplog, label):
    caplog.set_level(logging.INFO)
    rows = table()
    for number in (3, 4):
        rows[number]["label"] = label
    frame = read_labeled(write_csv(tmp_path / "a.csv", rows))
    assert len(frame) == 28
    assert "m3" not in set(frame["msg_id"])
    assert "2 rows have no label and are left out" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["msg_id,msg,label", "MSG_ID,Msg,LABEL", "id,Text,label"])
def test_every_dialect_is_read(tmp_path, encoding, delimiter, header):
    rows = [["кот" + row["msg_id"], "Кот, " + row["msg"], row["label"]] for row in table()]
    lines = [header.split(","), *rows]
    text = "".join(delimiter.join(f'"{field}"' for field in line) + "\r\n" for line in lines)
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    frame = read_labeled(path)
    assert frame["label"].tolist() == LABELS
    assert frame["msg"][0] == rows[0][1]


def test_dialect_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.csv"
    path.write_bytes("msg_id;msg;label\n1.0;кот;1\n2.0;пёс;0\n".encode("cp1251"))
    _, rows, _ = read_table(path)
    assert [row["msg_id"] for row in rows] == ["1", "2"]
    for said in ("encoding: cp1251", "delimiter: semicolon", "msg_id: 1.0 is read as 1"):
        assert f"{path}: {said}" in caplog.text


def test_flat_export_of_label_studio_is_read_in_other_dialects(tmp_path):
    rows = [
        row | {"id": str(n), "annotator": "1", "annotation_id": str(n)}
        for n, row in enumerate(table())
    ]
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    for name, delimiter, encoding in (("a.tsv", "\t", "utf-8"), ("b.csv", ";", "utf-8-sig")):
        text = "".join(delimiter.join(line) + "\n" for line in lines)
        (tmp_path / name).write_bytes(text.encode(encoding))
        frame = read_labeled(tmp_path / name)
        assert frame["label"].tolist() == LABELS
        assert frame["msg_id"].tolist() == [row["msg_id"] for row in rows]


class TestRepeatedRows:
    def test_two_labels_of_a_message_are_a_problem(self, tmp_path):
        rows = [*table(), table()[1] | {"label": "yes"}, table()[2] | {"label": "1"}]
        rows[5]["label"] = "maybe"
        message = complaint(write_csv(tmp_path / "a.csv", rows))
        assert (
            "two labels for 2 message(s): line 3 and line 32, msg_id 'm1': '0' and 'yes'" in message
        )
        assert "line 7, msg_id 'm5': 'maybe'" in message
        assert "given before" not in message

    def test_same_row_is_taken_once(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        rows = [*table(), table()[0] | {"label": "positive"}]
        assert len(read_labeled(write_csv(tmp_path / "a.csv", rows))) == 30
        assert "1 rows repeat another one and are left out" in caplog.text

    def test_other_text_of_an_identifier_is_a_problem(self, tmp_path):
        rows = [*table(), table()[0] | {"msg": "another text"}]
        assert "msg_id given before in 1 row(s): line 32" in complaint(
            write_csv(tmp_path / "a.csv", rows)
        )

    def test_text_with_both_labels_is_warned_of(self, tmp_path, caplog):
        rows = [*table(), table()[0] | {"msg_id": "other", "label": "0"}]
        assert len(read_labeled(write_csv(tmp_path / "a.csv", rows))) == 31
        assert "1 texts have both labels: line 2 and line 32" in caplog.text


def test_shortened_identifiers_are_reported(tmp_path):
    rows = table()
    rows[2]["msg_id"] = "1.23457E+17"
    message = complaint(write_csv(tmp_path / "a.csv", rows))
    assert "msg_id without its last digits, which a spreadsheet has dropped in 1 row(s)" in message
    assert "line 4, msg_id '1.23457E+17'" in message


def test_all_problems_of_a_table_are_reported_at_once(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id;message;label\n1;a;1;\n2;b\n3;c;maybe\n4;;0\n")
    message = complaint(path)
    for problem in ("rows of other than 3 fields: line 3 has 2", "line 4, msg_id '3': 'maybe'"):
        assert problem in message
    assert "msg empty in 1 row(s): line 5" in message
