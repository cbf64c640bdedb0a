import numpy as np
import pandas as pd
from labelled_files import offers
from tiny_bert import save_tiny_bert

from train import learning_curve as command
from train.evaluation.candidates import FROZEN, SVC
from train.evaluation.learning_curve import Point, learning_curve


def corpus(count: int = 240, positives: int = 100) -> pd.DataFrame:
    return offers(np.arange(count) < positives, test_every=4)


class Embedder:
    """Embeds a text as its number of letters."""

    def embed(self, texts, name):
        return np.array([[float(len(text)), 1.0] for text in texts])


class TestCurve:
    def test_more_labels_of_the_same_draw(self):
        points = list(learning_curve(corpus(), Embedder(), [60, 20, 500], draws=2, seed=7))
        assert [point.labels for point in points] == [20, 60, 20, 60]  # the part has 180
        for point in points:
            assert point.figures.keys() == {SVC, FROZEN}
            assert point.figures[FROZEN]["n"] == 60
            assert point.figures[FROZEN]["average_precision"] > 0.9
        assert points[0].positives < points[1].positives

    def test_adjudicated_labels_judge(self):
        frame = corpus()
        frame["adjudicated"] = 1 - frame["label"]
        [point] = learning_curve(frame, Embedder(), [100], draws=1, seed=7)
        assert point.figures[SVC]["average_precision"] < 0.6

    def test_draws_of_one_label_have_no_figures(self):
        [point] = learning_curve(corpus(positives=2), Embedder(), [20], draws=1, seed=7)
        assert point.figures == {}
        assert point.positives < 2


def test_table_counts_draws_without_a_model():
    good = {way: {"f1": 0.5, "average_precision": 0.25} for way in (SVC, FROZEN)}
    text = command.table(
        [("chat", [Point(40, 3, good), Point(40, 1, {})]), ("chat", [Point(1000, 80, good)])]
    )
    assert "| chat | 40 | 1–3 | 1 of 2 | 0.250 | 0.250 | 0.500 | 0.500 |" in text
    assert "| chat | 1,000 | 80–80 | 1 of 1 |" in text


def test_command_writes_the_page(tmp_path, capsys):
    data, page = tmp_path / "chat.csv", tmp_path / "page.md"
    corpus().to_csv(data, index=False)
    page.write_text("# Before\n", encoding="utf-8")
    arguments = ["--data", data, "--labels", 50, "--draws", 1, "--out", page]
    encoder = save_tiny_bert(tmp_path / "encoder")
    assert command.main([*map(str, arguments), "--encoder", str(encoder)]) == 0
    assert "| chat | 50 |" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("# Before\n<!-- learning-curve -->")


def test_too_few_messages_are_counted(tmp_path, capsys):
    corpus().to_csv(tmp_path / "chat.csv", index=False)
    encoder = save_tiny_bert(tmp_path / "encoder")
    arguments = ["--data", tmp_path / "chat.csv", "--labels", 181, "--encoder", encoder]
    assert command.main([*map(str, arguments)]) == 1
    assert "has 180 messages, fewer than 181 labels" in capsys.readouterr().err


def test_file_that_is_not_there_is_named(tmp_path, capsys):
    assert command.main(["--data", str(tmp_path / "none.csv")]) == 1
    assert "none.csv" in capsys.readouterr().err
