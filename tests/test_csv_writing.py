"""CSV files that the project writes, read back: no text changes, and none becomes two rows."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from feedsieve.__main__ import main
from feedsieve.csv_writing import csv_writer
from feedsieve.files import open_atomically
from feedsieve.message import Message
from feedsieve.settings import settings
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.report import ReadReport
from feedsieve.sources.tables.csv_rows import DELIMITERS, CsvFile
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from labeling import pull
from labeling.batch import Item, read_batch, write_batch
from labeling.weak import write_scores
from train.audit import read_views, write_csv
from train.evaluation.label_audit import COLUMNS
from train.report import files

HOSTILE = [
    "first line\rsecond line",
    "first line\nsecond line",
    "first line\r\nsecond line",
    "\rat the start",
    "at the end\r",
    'the "Sea" hotel',
    '"all of it"',
    'a quote " and\ra line',
    "comma, semicolon; tab\t pipe|",
    "\u2028a line\u2028and\u2029a paragraph\x85",
    "'=1+1",
    "a\\backslash\\",
]
WITH_NUL = "a\x00b"  # which CSV may hold, and the store may not
IDS = [f"m{number}" for number in range(len(HOSTILE))]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", list(DELIMITERS))
def test_texts_are_read_as_they_were_written(tmp_path, delimiter, line_end):
    rows = [[name, text] for name, text in zip([*IDS, "n"], [*HOSTILE, WITH_NUL], strict=True)]
    with open_atomically(tmp_path / "a.csv") as file:
        csv_writer(file, delimiter=delimiter, line_end=line_end).writerows([["id", "msg"], *rows])
    read = CsvFile(tmp_path / "a.csv", ReadReport())
    assert (read.dialect.delimiter, read.dialect.line_end) == (delimiter, line_end)
    assert [row for _line, row in read.rows()] == rows


@pytest.mark.parametrize("options", [[], ["--resolved"]], ids=["all", "resolved"])
def test_exported_labels_make_the_same_store(tmp_path, monkeypatch, options):
    store = MessageStore.open(tmp_path / "one.db")
    given = [
        LabelledMessage(
            Message(name, text, source="name:chat"), "positive", "vera", None, "test", note=text
        )
        for name, text in zip(IDS, HOSTILE, strict=True)
    ]
    store.import_labels(given, "name:chat")
    for name, command in (("one", "export"), ("two", "import")):
        monkeypatch.setenv("FEEDSIEVE_DB", str(tmp_path / f"{name}.db"))
        settings.cache_clear()
        arguments = options if command == "export" else []
        assert main(["labels", command, str(tmp_path / "labels.csv"), *arguments]) == 0
    settings.cache_clear()
    copy = MessageStore.open(tmp_path / "two.db")
    assert {m.id: m.text for m in copy.read_all()} == dict(zip(IDS, HOSTILE, strict=True))
    assert len(copy.labels()) == len(HOSTILE)


def test_batch_is_read_back(tmp_path):
    items = [Item(name, text, 0.5) for name, text in zip(IDS, HOSTILE, strict=True)]
    write_batch(items, tmp_path / "batch.csv")
    assert read_batch(tmp_path / "batch.csv") == items


def test_weak_scores_are_read_back(tmp_path):
    messages = [Message(name, text) for name, text in zip(IDS, HOSTILE, strict=True)]
    write_scores(messages, np.linspace(1, 0, len(messages)), tmp_path / "scored.csv")
    items = read_batch(tmp_path / "scored.csv")
    assert [(item.msg_id, item.msg) for item in items] == list(zip(IDS, HOSTILE, strict=True))


def test_pulled_labels_are_read_back(tmp_path):
    columns = ["msg_id", "msg", "label", "note"]
    rows = [
        {"msg_id": name, "msg": text, "label": "1", "note": text}
        for name, text in zip(IDS, HOSTILE, strict=True)
    ]
    path = tmp_path / "labeled.csv"
    pull._write(pull.Merged(columns, [*rows, {"msg_id": "n", "msg": "x", "label": "0"}]), path)
    assert pull._read(path) == (
        columns,
        [*rows, {"msg_id": "n", "msg": "x", "label": "0", "note": ""}],
    )


def test_audit_is_read_back(tmp_path):
    table = pd.DataFrame(dict.fromkeys(COLUMNS, ""), index=range(len(IDS)))
    table = table.assign(msg_id=IDS, msg=HOSTILE, label="1", score=0.5, wrong=0.5, wrong_so_far=1.0)
    write_csv(table, tmp_path / "audit.csv")
    assert [item.msg for item in read_batch(tmp_path / "audit.csv")] == HOSTILE


def test_held_out_scores_are_read_back(tmp_path):
    names = [f"m{text}m" for text in HOSTILE]
    frame = pd.DataFrame({"msg_id": names, "msg": HOSTILE})
    scores = np.linspace(0, 1, len(names))
    fitted = SimpleNamespace(held_out=scores, views={}, folds=np.zeros(len(names), int))
    files._write_held_out(tmp_path / "held_out.csv", frame, fitted)
    assert read_views(tmp_path / "held_out.csv", frame)["score"] == pytest.approx(scores)
    assert fingerprint(HOSTILE[0]) in (tmp_path / "held_out.csv").read_text()
