import numpy as np

from train.encoder.embedder import Embedder


class Lengths:
    """An encoder that counts letters and records its texts."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts, progress=None):
        self.encoded += texts
        if progress:
            progress(len(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32).reshape(-1, 2)


def test_equal_texts_are_embedded_once(capsys):
    encoder = Lengths()
    embedder = Embedder(encoder)
    rows = embedder.embed(["flat", "to let", " flat ", "flat\u200b"], "embed")
    assert len(encoder.encoded) == 2
    assert embedder.embed(["to let"], "again").tolist() == rows[1:2].tolist()
    assert len(encoder.encoded) == 2
    assert rows[:, 0].tolist() == [rows[0, 0], 6, rows[0, 0], rows[0, 0]]
    assert "embed: 100%" in capsys.readouterr().err
