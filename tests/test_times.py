"""Times in tables, as databases, programs and spreadsheets write them."""

from datetime import UTC, datetime

import pytest

from feedsieve.message import InvalidFile
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.messages import read_csv
from feedsieve.sources.tables.times import TimeColumn

NOON = datetime(2024, 12, 31, 12, 5, tzinfo=UTC)


def times(folder, *values: str, header: str = "id;msg;time") -> tuple[list[datetime | None], list]:
    path = folder / "a.csv"
    rows = [f"{number};кот;{value}" for number, value in enumerate(values)]
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    report = ReadReport()
    read = [message.time for message in read_csv(path, report)]
    return read, [note for note in report.notes if not note.startswith("delimiter")]


@pytest.mark.parametrize(
    "written",
    [
        "2024-12-31T12:05:00Z",
        "2024-12-31 12:05",
        "2024-12-31T15:05:00.000+03:00",
        "2024-12-31 12:05:00 UTC",
        "20241231120500",
        "20241231T120500",
        "2024/12/31 12:05:00",
        "2024.12.31 12:05",
        "Tue, 31 Dec 2024 12:05:00 GMT",
        "1735646700",
        "1735646700.0",
        "1735646700000",
        "1735646700000000",
        "1735646700000000000",
        "45657.503472",
        "45657,503472",
        "31.12.2024 12:05",
        "31.12.2024 12:05:00",
        "31.12.2024, 12:05",
        "31.12.24 12:05",
        "31.12.2024 15:05:00 UTC+03:00",
        "31/12/2024 12:05:00",
        "31-12-2024 12:05",
        "12/31/2024 12:05 PM",
        "12/31/24, 12:05 pm",
        "12/31/2024 12:05",
    ],
)
def test_time_is_read(tmp_path, written):
    assert times(tmp_path, written)[0] == [NOON]


@pytest.mark.parametrize("written", ["", " ", "nan", "NaT", "None", "NULL", "\\N", "0", "-"])
def test_no_time_is_none(tmp_path, written):
    assert times(tmp_path, written)[0] == [None]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("вчера", "expected a time in ISO 8601"),
        ("12:05", "expected a time"),
        ("########", "expected a time"),
        ("31.02.2024", "expected a time"),
        ("31.12.2024 25:00", "expected a time"),
        ("12/31/2024 14:05 PM", "expected a time"),
        ("123", "out of range"),
        ("99999999999999", "out of range"),
        ("9" * 400, "out of range"),
        ("1.70410E+12", "expected a time"),
        ("01/02/2024 9:30", "cannot be told apart, as in '01/02/2024 9:30'"),
    ],
)
def test_other_value_is_refused_with_its_line(tmp_path, written, reason):
    with pytest.raises(InvalidFile, match="line 2: ") as caught:
        times(tmp_path, written)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


class TestOrder:
    def test_one_day_decides_for_the_whole_file(self, tmp_path):
        read, notes = times(tmp_path, "01/02/2024", *["03/02/2024"] * 500, "25/02/2024")
        assert read[0] == datetime(2024, 2, 1, tzinfo=UTC)
        assert notes == ["time: day before month"]

    def test_american_order_is_taken_from_a_later_row(self, tmp_path):
        read, notes = times(tmp_path, "01/02/2024 1:00 AM", "02/25/2024 2:00 PM")
        assert read == [datetime(2024, 1, 2, 1, tzinfo=UTC), datetime(2024, 2, 25, 14, tzinfo=UTC)]
        assert notes == ["time: month before day"]

    def test_full_stops_alone_are_days_before_months(self, tmp_path):
        assert times(tmp_path, "01.02.2024")[0] == [datetime(2024, 2, 1, tzinfo=UTC)]

    def test_both_orders_are_refused(self, tmp_path):
        with pytest.raises(InvalidFile, match="line 3: the time '12/31/2024' is not day before"):
            times(tmp_path, "31/12/2024", "12/31/2024")

    def test_dates_beside_other_forms_are_read(self, tmp_path):
        assert times(tmp_path, "2024-12-31 12:05", "31.12.2024 12:05")[0] == [NOON, NOON]


def test_date_and_time_of_day_in_two_columns_are_joined(tmp_path):
    read, _ = times(tmp_path, "31.12.2024;12:05", "2024-12-31;12:05:00", header="id;msg;Date;Time")
    assert read == [NOON, NOON]


def test_full_time_beside_a_date_stands_alone(tmp_path):
    values = "31.12.2024;2024-12-31T12:05:00Z"
    assert times(tmp_path, values, header="id;msg;Date;Time")[0] == [NOON]


@pytest.mark.parametrize(
    ("written", "note"),
    [
        ("1735646700000", "time: milliseconds since 1970"),
        ("45657", "time: days since 1900, as in Excel"),
    ],
)
def test_form_of_numbers_is_noted_once(written, note):
    report = ReadReport()
    column = TimeColumn(report, "time")
    for _ in range(3):
        column.parse(written)
    assert report.notes == [note]
