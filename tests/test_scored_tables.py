"""Tables to score: every row comes out again, in the form of the file."""

import csv
import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.bulk import tables
from feedsieve.bulk.tables import Columns, check_format, open_table
from feedsieve.message import InvalidFile
from feedsieve.sources.report import ReadReport

TEXTS = ["Отдам кота", "Кому кота?", ""]


def scored(source: Path, columns: Columns | None = None) -> tuple[Path, list[str], ReadReport]:
    """Write a table with the score 0.25 and the label negative; return it and its texts."""
    report = ReadReport()
    table = open_table(source, columns, report)
    target = source.with_name(f"scored-{source.name}")
    texts, parts = [], []
    for part in table.parts():
        count = len(part.texts)
        parts.append(source.with_name(f"part-{part.number}"))
        table.write(part, [0.25] * count, ["negative"] * count, parts[-1])
        texts += part.texts
    assert table.join(parts, target) == (0, len(texts))
    return target, texts, report


def write(folder: Path, content: str | bytes, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, columns: Columns | None = None) -> str:
    with pytest.raises(InvalidFile) as caught:
        scored(path, columns)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The file, what is written, and what is said.
CSV: dict[str, tuple[bytes, bytes, list[str]]] = {
    "plain": (
        b"id,msg\n1,a\n2,b\n",
        b"id,msg,score,label\n1,a,0.250000,negative\n2,b,0.250000,negative\n",
        [],
    ),
    "other name": (
        b"id,text\n1,a\n",
        b"id,text,score,label\n1,a,0.250000,negative\n",
        ["texts: column text"],
    ),
    "semicolon, CRLF, mark": (
        b"\xef\xbb\xbfid;MSG\r\n1;a, b\r\n",
        b"\xef\xbb\xbfid;MSG;score;label\r\n1;a, b;0.250000;negative\r\n",
        ["delimiter: semicolon", "texts: column MSG"],
    ),
    "sep line": (
        b"sep=;\nid;msg\n1;a\n",
        b"sep=;\nid;msg;score;label\n1;a;0.250000;negative\n",
        ["delimiter: semicolon"],
    ),
    "carriage returns": (
        b'id,msg\r1,"a\nb"\r2,"a\rb"\r',
        b'id,msg,score,label\r1,"a\nb",0.250000,negative\r2,"a\rb",0.250000,negative\r',
        [],
    ),
    "line feeds": (
        b'id,msg\n1,"a\rb"\n2,"a\nb"\n',
        b'id,msg,score,label\n1,"a\rb",0.250000,negative\n2,"a\nb",0.250000,negative\n',
        [],
    ),
    "UTF-16": (
        "\ufeffid\tmsg\n1\tкот\n".encode("utf-16-le"),
        "\ufeffid\tmsg\tscore\tlabel\n1\tкот\t0.250000\tnegative\n".encode("utf-16-le"),
        ["encoding: UTF-16", "delimiter: tab"],
    ),
    "cp1251": (
        "id,msg\n1,Отдам кота\n".encode("cp1251"),
        "id,msg,score,label\n1,Отдам кота,0.250000,negative\n".encode("cp1251"),
        ["encoding: cp1251"],
    ),
    "NUL": (b"id,msg\n1,a\0b\n", b"id,msg,score,label\n1,a\0b,0.250000,negative\n", []),
    "blank rows": (
        b"id,msg\n1,a\n\n,\n2,b\n\n\n",
        b"id,msg,score,label\n1,a,0.250000,negative\n,,0.250000,negative\n,,0.250000,negative\n"
        b"2,b,0.250000,negative\n",
        [],
    ),
    "empty columns": (
        b"id,msg,,\n1,a,,\n2,b\n",
        b"id,msg,,,score,label\n1,a,,,0.250000,negative\n2,b,,,0.250000,negative\n",
        [],
    ),
    "header twice": (
        b"id,msg\nid,msg\n",
        b"id,msg,score,label\nid,msg,0.250000,negative\n",
        [],
    ),
    "list of texts": (
        b"msg\na, b\nc\n",
        b'msg,score,label\n"a, b",0.250000,negative\nc,0.250000,negative\n',
        [],
    ),
    "stray quotes": (
        b'id,msg\n1,"Sea" view\n',
        b'id,msg,score,label\n1,"""Sea"" view",0.250000,negative\n',
        ["quotes that are not CSV in 1 row(s), read as they stand"],
    ),
}


class TestCSV:
    @pytest.mark.parametrize("case", CSV)
    def test_result_has_all_rows_in_the_form_of_the_file(self, tmp_path, monkeypatch, case):
        monkeypatch.setattr(tables, "ROWS_A_PART", 2)
        source, expected, said = CSV[case]
        target, _, report = scored(write(tmp_path, source))
        assert target.read_bytes() == expected
        assert report.notes == said

    def test_column_is_chosen(self, tmp_path):
        path = write(tmp_path, "msg;Отзыв\n1;кот\n")
        for name in ("Отзыв", "отзыв"):
            assert scored(path, Columns(name))[1] == ["кот"]
        assert "with a column нет; the columns are 'msg,Отзыв'" in refusal(path, Columns("нет"))

    def test_labels_of_the_file_are_kept(self, tmp_path):
        path = write(tmp_path, "id,msg,Label\n1,a,1\n")
        assert "has a column label already" in refusal(path)
        target, _, _ = scored(path, Columns(added=("model_score", "model_label")))
        header = "id,msg,Label,model_score,model_label\n"
        assert target.read_text() == f"{header}1,a,1,0.250000,negative\n"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            (b"msg,msg\na,b\n", "column 'msg' is there 2 times"),
            (b"text,Text\na,b\n", "column 'text' is there 2 times"),
            (b"a,b\n1,2\n", "name the column of the texts with --column"),
            (b"id,msg\n1,a,b\n", "line 2: expected 2 fields"),
            (b'id,msg\n1,"a\n', "line 2: expected CSV; the quote that opens here"),
            (b'[{"msg": "a"}]', "expected CSV; the file is JSON"),
            (b' [\n {"msg": "a"}]', "expected CSV; the file is JSON"),
            (b'{"msg": "a"}\n', "expected CSV; the file is JSON"),
            (b"PK\x03\x04..", "a zip file or an Excel workbook"),
            (b"\x1f\x8b\x08..", "compressed; unpack it"),
            (b"SQLite format 3\0", "an SQLite database"),
            (b"PAR1....", "the file is Parquet; let both names end in .parquet"),
            ("id,msg\n1,Отдам кота\n".encode("koi8-r"), "iconv -f koi8-r"),
        ],
    )
    def test_other_file_is_refused_in_one_line(self, tmp_path, content, reason):
        assert reason in refusal(write(tmp_path, content))


FIELD = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\x00")
    | st.sampled_from('\r\n",;\t|'),
    max_size=12,
)


@given(
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=100, deadline=None)
def test_any_table_comes_out_with_its_rows(tmp_path_factory, rows, delimiter, end, encoding):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("msg", "note"), *rows])
    path = write(tmp_path_factory.getbasetemp(), out.getvalue().encode(encoding))
    with scored(path)[0].open(encoding=encoding, newline="") as file:
        header, *written = csv.reader(file, delimiter=delimiter, strict=True)
    assert header == ["msg", "note", "score", "label"]
    assert written == [[*row, "0.250000", "negative"] for row in rows]


def column(kind: pyarrow.DataType | None = None) -> pyarrow.Array:
    return pyarrow.array([*TEXTS, None], kind)


STRINGS = {
    "string": column(pyarrow.string()),
    "large string": column(pyarrow.large_string()),
    "string view": column(pyarrow.string_view()),
    "categories": column().dictionary_encode(),
    "large categories": column(pyarrow.large_string()).dictionary_encode(),
    "ordered categories": pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0, 1, 2, None], pyarrow.uint8()), pyarrow.array(TEXTS), ordered=True
    ),
    "binary": column().cast(pyarrow.binary()),
    "large binary": column().cast(pyarrow.large_binary()),
    "binary view": column().cast(pyarrow.binary_view()),
}


class TestParquet:
    @pytest.mark.parametrize("kind", STRINGS)
    def test_any_kind_of_string_is_read_and_kept(self, tmp_path, monkeypatch, kind):
        monkeypatch.setattr(tables, "ROWS_A_PART", 3)
        source = pyarrow.table({"msg": STRINGS[kind], "n": range(4)})
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(source, path, row_group_size=2)
        target, texts, _ = scored(path)
        assert texts == [*TEXTS, ""]
        written = pyarrow.parquet.read_table(target)
        assert written.drop_columns(["score", "label"]) == pyarrow.parquet.read_table(path)
        assert written["score"].to_pylist() == [0.25] * 4

    def test_column_of_nulls_is_read(self, tmp_path):
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"msg": pyarrow.nulls(3)}), path)
        assert scored(path)[1] == ["", "", ""]

    def test_other_columns_and_metadata_are_kept(self, tmp_path):
        source = pyarrow.table(
            {
                "Text": ["a", "b"],
                "nested": [{"x": [1, 2]}, None],
                "pairs": pyarrow.array([[("k", 1)], None], pyarrow.map_("string", "int64")),
                "nothing": pyarrow.nulls(2),
            }
        ).replace_schema_metadata({"note": "mine"})
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(source, path)
        target, _, report = scored(path)
        written = pyarrow.parquet.read_table(target)
        before = pyarrow.parquet.read_table(path)
        assert written.drop_columns(["score", "label"]).equals(before, check_metadata=True)
        assert report.notes == ["texts: column Text"]

    def test_name_of_another_column_may_be_there_twice(self, tmp_path):
        arrays = [pyarrow.array(["a"]), pyarrow.array([1]), pyarrow.array([2])]
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, ["msg", "x", "x"]), path)
        names = pyarrow.parquet.ParquetFile(scored(path)[0]).schema_arrow.names
        assert names == ["msg", "x", "x", "score", "label"]

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"msg": [b"\xff\xfe"]}, "row 1: expected UTF-8 text"),
            ({"msg": [["a"]]}, "column msg is list<element: string>, not string"),
            ({"msg": ["a"], "SCORE": ["b"]}, "has a column score already"),
            ({"x": ["a"]}, "the columns are 'x'; name the column of the texts with --column"),
        ],
    )
    def test_unsuitable_table_is_refused(self, tmp_path, columns, reason):
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        assert reason in refusal(path)

    def test_text_twice_is_refused(self, tmp_path):
        table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["msg", "msg"])
        pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
        assert "column 'msg' is there 2 times" in refusal(tmp_path / "in.parquet")

    def test_csv_of_that_name_is_refused(self, tmp_path):
        with pytest.raises(InvalidFile, match="needs another name, such as in.csv"):
            check_format(write(tmp_path, b"msg\na\n", "in.parquet"))

    def test_cut_file_is_refused(self, tmp_path):
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"msg": ["a"]}), path)
        path.write_bytes(path.read_bytes()[:-8])
        assert "expected Parquet" in refusal(path)
