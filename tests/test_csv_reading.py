"""CSV files as programs and spreadsheets write them: what comes in, and what is said."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables import csv_rows
from feedsieve.sources.tables.messages import read_csv

PLAIN = "msg_id,msg\n1,Отдам кота\n2,Кому кота?\n"
BOTH = [("1", "Отдам кота"), ("2", "Кому кота?")]
LONG = "msg_id,msg\n" + "".join(f"{n},Кто едет в горы в {n}-й день\n" for n in range(3000))


def read(content: str | bytes, folder: Path) -> tuple[list[Message], ReadReport]:
    path = folder / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = ReadReport()
    return list(read_csv(path, report)), report


def with_dialect(delimiter: str, end: str = "\n") -> str:
    return PLAIN.replace(",", delimiter).replace("\n", end)


# Expected identifiers and texts, and all notes.
READ: dict[str, tuple[str | bytes, list[tuple[str, str]], list[str]]] = {
    "plain": (PLAIN, BOTH, []),
    "mark": ("\ufeff" + PLAIN, BOTH, []),
    "three marks": ("\ufeff" * 3 + PLAIN, BOTH, ["encoding: UTF-8 with 3 byte order marks"]),
    "mark before a quote": ('\ufeff"msg_id","msg"\n"1","a"\n', [("1", "a")], []),
    "UTF-16": (("\ufeff" + PLAIN).encode("utf-16-le"), BOTH, ["encoding: UTF-16"]),
    "UTF-16, big": (
        ("\ufeff" + PLAIN).encode("utf-16-be"),
        BOTH,
        ["encoding: UTF-16, big-endian"],
    ),
    "UTF-16 without mark": (PLAIN.encode("utf-16-le"), BOTH, ["encoding: UTF-16"]),
    "UTF-16, big, without mark": (
        PLAIN.encode("utf-16-be"),
        BOTH,
        ["encoding: UTF-16, big-endian"],
    ),
    "UTF-32": (("\ufeff" + PLAIN).encode("utf-32-le"), BOTH, ["encoding: utf-32-le"]),
    "cp1251": (PLAIN.encode("cp1251"), BOTH, ["encoding: cp1251"]),
    "cp1251, one word": ("id;msg\n1;Кот\n".encode("cp1251"), [("1", "Кот")], None),
    "cp1251, capitals": ("id,msg\n1,ОТДАМ КОТА\n".encode("cp1251"), [("1", "ОТДАМ КОТА")], None),
    "cp1251, signs": (
        "id,msg\n1,Кафе «Чайка» – № 5…\n".encode("cp1251"),
        [("1", "Кафе «Чайка» – № 5…")],
        None,
    ),
    "semicolon": (
        with_dialect(";").replace("кота\n", "кота, рыжего\n"),
        [("1", "Отдам кота, рыжего"), BOTH[1]],
        ["delimiter: semicolon"],
    ),
    "tab": (with_dialect("\t"), BOTH, ["delimiter: tab"]),
    "pipe": (with_dialect("|"), BOTH, ["delimiter: pipe"]),
    "sep": ("sep=;\n" + with_dialect(";"), BOTH, ["delimiter: semicolon"]),
    "sep comma": ("sep=,\r\n" + with_dialect(",", "\r\n"), BOTH, []),
    "quoted sep": ('"SEP=|"\n' + with_dialect("|"), BOTH, ["delimiter: pipe"]),
    "carriage returns": (with_dialect(",", "\r"), BOTH, []),
    "line feeds after carriage returns": (with_dialect(",", "\r\n"), BOTH, []),
    "mark, UTF-16, tab, CRLF": (
        ("\ufeff" + with_dialect("\t", "\r\n")).encode("utf-16-le"),
        BOTH,
        ["encoding: UTF-16", "delimiter: tab"],
    ),
    "empty columns": (
        "msg_id,msg,,\n1,Отдам кота,,\n,,,\n2,Кому кота?,,,,,\n",
        BOTH,
        ["1 empty rows"],
    ),
    "rows without empty columns": ("msg_id,msg,,\n1,Отдам кота\n2,Кому кота?\n", BOTH, []),
    "blank lines": ("\n\n" + PLAIN.replace("\n", "\n\n"), BOTH, []),
    "upper case": (PLAIN.replace("msg_id,msg", "MSG_ID, Msg "), BOTH, []),
    "other names": (PLAIN.replace("msg_id,msg", "Message ID,Content"), BOTH, []),
    "Russian names": (PLAIN.replace("msg_id,msg", "Номер,Текст"), BOTH, []),
    "index of pandas": (
        ",msg_id,msg\n0,1,Отдам кота\n1,2,Кому кота?\n",
        BOTH,
        ["columns not used: one without a name"],
    ),
    "index with a name": (
        "Unnamed: 0,msg_id,msg,mood\n0,1,Отдам кота,0\n1,2,Кому кота?,1\n",
        BOTH,
        ["columns not used: Unnamed: 0, mood"],
    ),
    "joined files": (PLAIN + PLAIN, BOTH * 2, ["1 repeated header lines"]),
    "joined files with marks": ("\ufeff" + PLAIN + "\ufeff" + PLAIN, BOTH * 2, None),
    "NUL": (
        "msg_id,msg\n1,Отдам\x00 кота\n2,Кому кота?\n",
        [("1", "Отдам\x00 кота"), BOTH[1]],
        ["NUL characters left out of 1 text(s)"],
    ),
    "quotes inside": (
        'msg_id,msg\n1,Диск 15" новый\n2,"Чайка" у моря\n3,"Кафе "Чайка" у моря"\n'
        '4,"Кафе "Чайка""\n5,"Кафе "Чайка", 2 этаж"\n6,"a ""b"" c"\n',
        [
            ("1", 'Диск 15" новый'),
            ("2", '"Чайка" у моря'),
            ("3", 'Кафе "Чайка" у моря'),
            ("4", 'Кафе "Чайка"'),
            ("5", 'Кафе "Чайка", 2 этаж'),
            ("6", 'a "b" c'),
        ],
        ["quotes that are not CSV in 4 row(s), read as they stand"],
    ),
    "backslashes": (
        'msg_id,msg\n1,"Кафе \\"Чайка\\", 2 этаж"\n2,"Это \\""\n3,"C:\\new \\\\ \\"x\\""\n'
        '4,"два\n\\"ряда\\""\n',
        [
            ("1", 'Кафе "Чайка", 2 этаж'),
            ("2", 'Это "'),
            ("3", 'C:\\new \\ "x"'),
            ("4", 'два\n"ряда"'),
        ],
        ["quotes: escaped by backslashes"],
    ),
    "spaces before quotes": (
        'msg_id, msg\n1, "Кот, рыжий"\n',
        [("1", "Кот, рыжий")],
        ["quotes that are not CSV in 1 row(s), read as they stand"],
    ),
    "formulas": (
        'msg_id,msg\n1,"=HYPERLINK(""x"")"\n2,\'+1 к ответу\n3,@кот\n',
        [("1", '=HYPERLINK("x")'), ("2", "'+1 к ответу"), ("3", "@кот")],
        [],
    ),
    "words for nothing": (
        "msg_id,msg\n1,nan\n2,NULL\n3,None\n4,NA\n5,\\N\n",
        [("1", "nan"), ("2", "NULL"), ("3", "None"), ("4", "NA"), ("5", "\\N")],
        [],
    ),
    "floats": (
        "msg_id,msg\n1.0,Отдам кота\n2.0,Кому кота?\n",
        BOTH,
        ["msg_id: 1.0 is read as 1"],
    ),
    "floats and gaps": (
        "msg_id,msg\n1.0,a\nnan,b\n2.0,c\n",
        [("1", "a"), ("", "b"), ("2", "c")],
        ["msg_id: 1.0 is read as 1"],
    ),
    "versions": ("msg_id,msg\n1.0,a\n1.1,b\n", [("1.0", "a"), ("1.1", "b")], []),
    "error of Excel": (
        "msg_id,msg\n1,#ИМЯ?\n2,#NAME? что это\n",
        [("2", "#NAME? что это")],
        ["1 texts that a spreadsheet has replaced by an error"],
    ),
    "long": (LONG, None, []),
    "long, cp1251 from the end on": (
        LONG.replace("Кто едет в горы в", "Day").replace("-й день", "").encode()
        + "x1,Кто едет в горы\n".encode("cp1251"),
        None,
        ["encoding: cp1251"],
    ),
}

# The place and what is said.
REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "no header": ("1,Отдам кота\n2,Кому кота?\n", "line 1", "there is no header: add a first line"),
    "no header, semicolon": ("1;Кот\n2;Пёс\n", "line 1", "there is no header: add a first line"),
    "no identifier": ("msg,time\nКот,2024-05-01\n", "line 1", "the columns are 'msg,time'"),
    "open quote": (PLAIN + '3,"Пропал кот\n4,Нашёлся\n', "line 4", "quote that opens here"),
    "open quote before others": (
        'msg_id,msg\n1,"Пропал кот\n2,Нашёлся\n3,"Ура"\n',
        "line 2",
        "quote that opens here is not closed",
    ),
    "open quote in a later line": (
        'msg_id,msg,note\n1,"два\nряда","открыта\n2,b,c\n',
        "line 3",
        "quote that opens here is not closed",
    ),
    "name twice": ("msg_id,msg,MSG\n1,a,b\n", "line 1", "'msg' is there 2 times"),
    "too many fields": (PLAIN + "3,кот, пёс\n", "line 4", "expected 2 fields"),
    "too many quoted fields": ('id,text\n1,a\n"2","hi","extra"\n', "line 3", "expected 2 fields"),
    "too few fields": (PLAIN + "и кошку\n", "line 4", "put texts with a comma or a line end into"),
    "shortened identifier": (
        PLAIN + "1.23457E+17,a\n",
        "line 4",
        "import this column",
    ),
    "shortened, with a comma": ("id;msg\n1,2E+17;a\n", "line 2", "has lost its digits"),
    "shortened float": ("id,msg\n1.0,a\n1.5e+17,a\n", "line 3", "has lost its digits"),
    "shortened answer": ("id,msg,reply_to\n1,a,1.23E+11\n", "line 2", "has lost its digits"),
    "shortened chat": ("id,msg,chat_id\n1,a,-1.0E+12\n", "line 2", "has lost its digits"),
    "KOI8-R": (PLAIN.encode("koi8-r"), "line 2", "iconv -f koi8-r -t utf-8 IN > OUT"),
    "cp866": (PLAIN.encode("cp866"), "line 2", "iconv -f cp866 -t utf-8 IN > OUT"),
    "Greek": ("id,msg\n1,Χάθηκε η γάτα\n".encode("cp1253"), "line 2", "expected UTF-8 text"),
    "German": ("id,msg\n1,Schöne Grüße\n".encode("cp1252"), "line 2", "expected UTF-8 text"),
    "damaged UTF-8": (PLAIN.encode() + b"3,\xd0\xff\n", "line 4", "byte 0xd0 is damaged"),
    "cut UTF-8": (PLAIN.encode()[:-3], "line 3", "is damaged; export it again"),
    "damaged after much": (LONG.encode() * 9 + b"3,\xd0\xff\n", "line 27010", "is damaged"),
    "cut UTF-16": (("\ufeff" + PLAIN).encode("utf-16-le") + b"\x00", "a.csv", "expected utf-16-le"),
}


@pytest.mark.parametrize("case", READ)
def test_file_is_read_and_what_is_unusual_said(tmp_path, case):
    content, rows, said = READ[case]
    messages, report = read(content, tmp_path)
    if rows is None:
        assert len(messages) > 2999
    else:
        assert [(message.id, message.text) for message in messages] == rows
    if said is not None:
        skipped = [f"{count} {reason}" for reason, count in report.skipped.items()]
        assert [*report.notes, *skipped] == said


@pytest.mark.parametrize("case", REFUSED)
def test_file_is_refused_in_one_line_with_the_place(tmp_path, case):
    content, place, reason = REFUSED[case]
    with pytest.raises(InvalidFile) as caught:
        read(content, tmp_path)
    message = str(caught.value)
    assert place in message
    assert reason in message
    assert "\n" not in message
    assert len(message) < 500


class TestColumns:
    def test_every_part_of_a_message_is_read(self, tmp_path):
        messages, report = read(
            "Time,Text,From,URL,reply_to_msg_id,chat_title,edit_date,message_id,views\n"
            "2024-05-01 12:00,Отдам кота,Мурка,https://example.org/1,7.0,Коты,1714564800,1,9\n"
            ",И миску,nan,,,,,2,3\n",
            tmp_path,
        )
        noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
        assert messages == [
            Message(
                id="1",
                text="Отдам кота",
                channel="Коты",
                time=noon,
                source="name:Коты",
                sender="Мурка",
                link="https://example.org/1",
                reply_to="7",
                edited=noon,
            ),
            Message("2", "И миску"),
        ]
        assert report.notes == ["columns not used: views"]

    @pytest.mark.parametrize(
        ("chat", "source"),
        [
            ("-1001234567890", "telegram:channel:1234567890"),
            ("-1001234567890.0", "telegram:channel:1234567890"),
            ("-77", "telegram:group:77"),
            ("77", "name:77"),
            ("", "name:Коты"),
        ],
    )
    def test_chat_id_makes_the_source(self, tmp_path, chat, source):
        content = f"id,text,chat,chat_id\n1,Отдам кота,Коты,{chat}\n"
        [message] = read(content, tmp_path)[0]
        assert (message.source, message.channel) == (source, "Коты")

    def test_preferred_name_is_taken_and_the_other_one_named(self, tmp_path):
        messages, report = read("id,msg_id,message,text\n5,1,другое,Отдам кота\n", tmp_path)
        assert (messages[0].id, messages[0].text) == ("1", "Отдам кота")
        assert report.notes == ["columns not used: id, message"]

    def test_unused_column_may_be_there_twice(self, tmp_path):
        assert read("x,x,id,text\n1,2,3,a\n", tmp_path)[0] == [Message("3", "a")]


class TestLargeFiles:
    def test_backslashes_after_the_sample_are_mended(self, tmp_path):
        messages, report = read(LONG * 3 + '1,"Кафе \\"Чайка\\", дом"\n', tmp_path)
        assert messages[-1].text == 'Кафе "Чайка", дом'
        assert "quotes that are not CSV in 1 row(s), read as they stand" in report.notes

    def test_sample_that_cuts_a_row_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(csv_rows, "_SAMPLE_CHARACTERS", 40)
        content = with_dialect(";", "\r\n") * 3
        messages, report = read(content, tmp_path)
        assert len(messages) == 6
        assert report.notes[0] == "delimiter: semicolon"

    def test_rows_before_a_mended_one_are_not_read_again(self, tmp_path):
        rows = [f'{n},"Чайка" № {n}' if n % 3 else f'{n},"дом,\n{n}"' for n in range(100)]
        messages, _ = read("\n".join(["id,msg", *rows]), tmp_path)
        assert [message.id for message in messages] == [str(n) for n in range(100)]
        assert messages[3].text == "дом,\n3"
        assert messages[4].text == '"Чайка" № 4'

    def test_line_numbers_survive_mending(self, tmp_path):
        content = 'sep=,\nid,msg\n1,"Чайка" у моря\n2,"два\nряда"\n3,a,b\n'
        with pytest.raises(InvalidFile, match="line 6: expected 2 fields"):
            read(content, tmp_path)


FIELD = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff")
    | st.sampled_from('\n",;\t|\\ж'),
    max_size=20,
)


@given(
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=200, deadline=None)
def test_any_dialect_is_read_as_it_was_written(
    tmp_path_factory, rows, delimiter, end, encoding, quoting
):
    """Whatever the texts are; line ends in them are those of `csv`."""
    written = [(f"m{number}", *row) for number, row in enumerate(rows)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("msg_id", "msg", "sender"), *written])
    messages, _ = read(out.getvalue().encode(encoding), tmp_path_factory.getbasetemp())
    assert [(message.id, message.text) for message in messages] == [row[:2] for row in written]
