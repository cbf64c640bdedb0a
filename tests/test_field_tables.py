"""Small tables with one fault each, as public bug reports describe them."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving import ROOT
from test_scored_tables import scored

from feedsieve.bulk.tables import Columns
from feedsieve.message import InvalidFile
from feedsieve.sources.readers import read_messages
from train.data.labelled import read_labeled, read_rows
from train.data.validation import InvalidData

CORPUS = Path(os.environ.get("FEEDSIEVE_CORPUS") or ROOT.parent / "shared" / "corpus")
CASES = CORPUS.parent / "field-cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no field cases at {CASES}")

# The messages that come in, and what is said; or the reason why none does.
IMPORTED: dict[str, tuple[int, list[str]] | str] = {
    "c01_utf16_tab.csv": (1, ["encoding: UTF-16", "delimiter: tab"]),
    "c02_cp1251_semicolon.csv": (1, ["encoding: cp1251", "delimiter: semicolon"]),
    "c03_semicolon.csv": (1, ["delimiter: semicolon"]),
    "c04_tab.tsv": (1, ["delimiter: tab"]),
    "c05_sep_line.csv": (1, ["delimiter: semicolon"]),
    "c05b_sep_comma.csv": (1, []),
    "c07_excel_date.csv": (2, ["time: day before month"]),
    "c07b_us_date.csv": (1, ["time: month before day"]),
    "c07c_millis.csv": (1, ["time: milliseconds since 1970"]),
    "c07d_excel_serial.csv": (1, ["time: days since 1900, as in Excel"]),
    "c08_backslash_quote.csv": (2, ["quotes: escaped by backslashes"]),
    "c09_cr_only.csv": (2, []),
    "c10_trailing_cols.csv": (2, ["1 empty rows"]),
    "c11_upper_header.csv": (1, []),
    "c11b_quoted_bom_header.csv": (1, []),
    "c12_no_header.csv": "there is no header: add a first line that names the columns",
    "c13_nul.csv": (2, ["NUL characters left out of 1 text(s)"]),
    "c14_unclosed_quote.csv": "line 2: expected CSV; the quote that opens here is not closed",
    "c15_bare_quote.csv": (2, ["quotes that are not CSV in 1 row(s), read as they stand"]),
    "c16_formula.csv": (2, []),
    "c17_dup_header.csv": "column 'msg' is there 2 times; rename the others",
    "c18_dup_ids.csv": (3, []),  # the store tells repeated identifiers apart
    "c18b_dup_ids_channels.csv": (3, []),
    "c19_double_bom.csv": (1, ["encoding: UTF-8 with 2 byte order marks"]),
    "c21_nan_text.csv": (4, []),
    "c22_float_ids.csv": (2, ["msg_id: 1.0 is read as 1"]),
    "c23_pandas_index.csv": (1, ["columns not used: one without a name"]),
    "c24_message_id_text.csv": (1, []),
    "c25_chat1.csv": (2, []),
    "c25_chat2.csv": (2, []),
    "c27_live.csv": (1, []),
}

SCORED: dict[str, tuple[int, list[str]] | str] = {
    "c10_text.csv": (1, ["texts: column text"]),
    "c1_utf16.csv": (1, ["encoding: UTF-16", "delimiter: tab"]),
    "c2_semicolon.csv": (1, ["delimiter: semicolon"]),
    "c3_bom_crlf.csv": (1, []),
    "c4_tsv.tsv": (1, ["delimiter: tab"]),
    "c5_sample.json": "expected CSV; the file is JSON",
    "c6_blank_rows.csv": (4, []),
    "c7_dup_msg.csv": "column 'msg' is there 2 times",
    "c8_nul.csv": (1, []),
    "c9_has_label.csv": "has a column label already; name the new columns otherwise",
    "p10_dict_groups.parquet": (12_000, []),
    "p11_meta.parquet": (4, []),
    "p12_dup_msg.parquet": "column 'msg' is there 2 times",
    "p13_null_msg.parquet": (4, []),
    "p14_empty.parquet": (0, []),
    "p15_csv_named.parquet": "a CSV file needs another name",
    "p16_polars.parquet": (2, []),
    "p17_polars_cat.parquet": (2, []),
    "p18_polars_enum.parquet": (2, []),
    "p19_polars138.parquet": (2, []),
    "p1_large_string.parquet": (4, []),
    "p2_dict.parquet": (4, []),
    "p3_nested.parquet": (4, []),
    "p4_binary.parquet": (4, []),
    "p5_string_view.parquet": (4, []),
    "p6_pandas_index.parquet": (3, []),
    "p7_upper.parquet": (4, ["texts: column MSG"]),
    "p8_text.parquet": (4, ["texts: column text"]),
    "p9_rowgroups.parquet": (12_000, []),
}

# Identifiers and labels, and what is said.
LABELLED: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "l06_tsv.tsv": ([("1", "1"), ("2", "0")], ["delimiter: tab"]),
    "l16_excel_resaved.csv": ([("1", "1"), ("2", "0")], ["delimiter: semicolon"]),
    "l17_csv_cancelled.csv": ([("1", "1"), ("3", "0")], ["1 tasks have no label"]),
    "l23_plain_lower.csv": ([("1", "1"), ("2", "0")], []),
    "l24_label_float.csv": ([("1", "1.0"), ("2", "0.0")], []),
    "l25_label_bool.csv": ([("1", "TRUE"), ("2", "FALSE")], []),
    "l26_label_empty.csv": ([("1", "1"), ("3", "0")], ["1 rows have no label"]),
    "l28_utf16.csv": ([("1", "1")], ["encoding: UTF-16"]),
}


def of(folder: str, pattern: str) -> list[str]:
    return sorted(path.name for path in (CASES / folder).glob(pattern))


def test_every_table_is_in_this_test():
    assert of("import", "c*") == sorted(IMPORTED)
    assert of("score", "*") == sorted(SCORED)


@pytest.mark.parametrize("name", IMPORTED)
def test_table_is_imported_or_refused(name):
    messages = read_messages(CASES / "import" / name)
    expected = IMPORTED[name]
    if isinstance(expected, str):
        with pytest.raises(InvalidFile) as caught:
            list(messages)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    count = len(list(messages))
    skipped = [f"{number} {reason}" for reason, number in messages.report.skipped.items()]
    assert (count, [*messages.report.notes, *skipped]) == expected


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("c07_excel_date.csv", datetime(2024, 12, 31, 14, 5, tzinfo=UTC)),
        ("c07b_us_date.csv", datetime(2024, 12, 31, 14, 5, tzinfo=UTC)),
        ("c07c_millis.csv", datetime(2024, 1, 1, 10, tzinfo=UTC)),
        ("c07d_excel_serial.csv", datetime(2024, 12, 31, 14, 5, tzinfo=UTC)),
    ],
)
def test_time_is_right(name, time):
    assert next(read_messages(CASES / "import" / name)).time == time


def test_quotes_and_identifiers_are_right():
    def read(name: str) -> list[tuple[str, str]]:
        return [(message.id, message.text) for message in read_messages(CASES / "import" / name)]

    assert read("c08_backslash_quote.csv")[0][1].count('"') == 2
    assert [text.count('"') for _, text in read("c15_bare_quote.csv")] == [1, 2]
    assert [identifier for identifier, _ in read("c22_float_ids.csv")] == ["1", "2"]
    sources = {
        message.source for message in read_messages(CASES / "import/c18b_dup_ids_channels.csv")
    }
    assert sources == {"name:A", "name:B", "name:C"}


@pytest.mark.parametrize("name", SCORED)
def test_table_is_scored_or_refused(tmp_path, name):
    source, expected = tmp_path / name, SCORED[name]
    source.write_bytes((CASES / "score" / name).read_bytes())
    if isinstance(expected, str):
        with pytest.raises(InvalidFile) as caught:
            scored(source)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    _, texts, report = scored(source)
    assert (len(texts), report.notes) == expected


def test_labels_of_a_file_are_kept_under_other_names(tmp_path):
    source = tmp_path / "a.csv"
    source.write_bytes((CASES / "score" / "c9_has_label.csv").read_bytes())
    target, _, _ = scored(source, Columns(added=("model_score", "model_label")))
    assert target.read_text().splitlines()[0] == "id,msg,label,model_score,model_label"


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_read(caplog, name):
    caplog.set_level(logging.INFO)
    expected, said = LABELLED[name]
    _, rows, problems = read_rows(CASES / "ls" / name)
    assert [(row["msg_id"], row["label"]) for row in rows] == expected
    assert problems == []
    assert all(one in caplog.text for one in said)


def test_contradicting_labels_are_a_problem():
    with pytest.raises(InvalidData, match="two labels for 1 message") as caught:
        read_labeled(CASES / "ls" / "l27_conflict.csv")
    assert "line 2 and line 4, msg_id '1': '1' and '0'" in str(caught.value)


def test_labels_are_the_same_in_every_dialect():
    frames = [read_labeled(CASES / "ls" / name) for name in of("ls", "next_*")]
    assert len(frames) == 4
    assert all(frame.equals(frames[0]) for frame in frames)
