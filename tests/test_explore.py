from datetime import UTC, datetime

import ibis
import numpy as np
import pandas as pd
import pytest
from stores import location, new_location

from feedsieve.message import Message
from feedsieve.store.store import MessageStore
from labeling.explore import count_words, open_session, read_curated
from labeling.plane import WORDS, cluster, embed, hover, project, scatter

__all__ = ["location", "new_location"]

HOSTILE = "<img src=x onerror=alert(1)> & <b>bold</b> %{x} </script>"
FLATS = [f"сдаю квартиру в центре, этаж {name}" for name in ("первый", "второй", "третий")]
TALK = ["всем привет и хорошего дня", "всем привет, друзья"]


class TestTable:
    def test_read_curated_has_each_text_once_with_its_length(self, tmp_path):
        store = MessageStore.open(tmp_path / "messages.db")
        store.add(
            [Message("1", "Привет  всем"), Message("2", "Привет всем"), Message("3", "Hello")]
        )
        frame = read_curated(str(tmp_path / "messages.db"))
        assert frame[["id", "copies", "language", "characters"]].to_numpy().tolist() == [
            ["1", 2, "Russian", 11],
            ["3", 1, "English", 5],
        ]

    def test_words_are_counted_once_a_message(self):
        counts = count_words(["Дом дом у моря", "дом 2", "!"])
        assert dict(zip(counts["words"], counts["messages"], strict=True)) == {
            "дом": 2,
            "дом дом": 1,
            "дом моря": 1,
            "моря": 1,
        }
        assert counts["words"].iloc[0] == "дом"

    def test_texts_without_words_give_an_empty_table(self):
        assert count_words(["!", "2"]).empty


class TestSession:
    def test_store_answers_queries_on_curated_messages(self, location):
        texts = ["Привет  всем", "Привет всем", "Сдаю квартиру", HOSTILE]
        time = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
        messages = [Message(str(at), text, time=time) for at, text in enumerate(texts)]
        MessageStore.open(location).add(messages)
        table = open_session(str(location)).table("curated_messages")
        counts = table.group_by("language").agg(texts=table.count(), copies=table.copies.sum())
        rows = counts.order_by(ibis.desc("texts")).to_pandas().to_numpy().tolist()
        assert rows == [["Russian", 2, 3], ["English", 1, 1]]
        [found] = table.filter(table.text == HOSTILE).to_pandas().to_dict("records")
        assert pd.to_datetime(found["time"], utc=True) == time


class TestPlane:
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 40])
    def test_every_message_has_a_point(self, count):
        rows = np.random.default_rng(0).normal(size=(count, 8))
        points = project(rows, seed=7)
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()

    def test_equal_texts_form_one_cluster(self):
        texts = ["one and the same text"] * 10
        rows, _ = embed(texts, "no-such-model:latest", 1, seed=7)
        assert np.isfinite(project(rows, seed=7)).all()
        labels, names = cluster(texts, rows, 5, seed=7)
        assert set(labels) == {0} and len(names) == 1

    def test_clusters_are_named_by_words_and_sorted_by_size(self):
        texts = [*TALK, *FLATS]
        rows, maker = embed(texts, "no-such-model:latest", 1, seed=7)
        assert maker == WORDS
        labels, names = cluster(texts, rows, 2, seed=7)
        assert labels.tolist() == [1, 1, 0, 0, 0]
        assert names[0].startswith("1: ") and "квартиру" in names[0]
        assert names[1].startswith("2: ") and "привет" in names[1]

    def test_cluster_without_words_has_a_name(self):
        texts = ["!", "?", "..."]
        _, names = cluster(texts, np.eye(3), 3, seed=7)
        assert names == ["1: no words", "2: no words", "3: no words"]


class TestHover:
    def test_hover_text_is_escaped(self):
        shown = hover(HOSTILE)
        assert "<img" not in shown and "<b>" not in shown and "&lt;img src=x" in shown

    def test_long_hover_text_is_shortened_and_wrapped(self):
        lines = hover("слово " * 1000).split("<br>")
        assert len("".join(lines)) <= 301 and lines[-1].endswith("…")
        assert max(map(len, lines)) <= 60

    def test_plot_has_no_html_of_messages(self):
        frame = pd.DataFrame(
            {"id": ["<i>", "2"], "text": [HOSTILE] * 2, "language": ["English"] * 2}
        )
        figure = scatter(np.zeros((2, 2)), np.array([0, 1]), ["1: <u>", "2: b"], frame)
        cells = [
            *(trace.name for trace in figure.data),
            *(cell for trace in figure.data for row in trace.customdata for cell in row),
        ]
        assert len(cells) == 8
        assert not any("<" in cell.replace("<br>", "") for cell in cells)
