from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feedsieve.scoring.features import Head
from train.encoder.embedder import Embedder
from train.encoder.finetune import FineTuned
from train.encoder.precision import LARGEST_LOSS, Comparison, Figures, compare


class NoisyEncoder:
    """An encoder that encodes the first character, the label, with noise."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode(self, texts, progress=None):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(len(texts), 8)) * self.noise
        rows[:, 0] += [float(text[0]) for text in texts]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def labeled(count: int, positives: int) -> pd.DataFrame:
    labels = [int(number < positives) for number in range(count)]
    rng = np.random.default_rng(0)
    texts = [f"{label} {' '.join(map(chr, rng.integers(97, 20_000, 20)))}" for label in labels]
    return pd.DataFrame({"msg": texts, "label": labels})


class TestPrecision:
    @pytest.fixture
    def _no_word_model(self, monkeypatch) -> None:
        """Make the comparison depend on the encoder alone."""
        monkeypatch.setattr(
            "train.encoder.precision.word_model.out_of_fold",
            lambda _counts, labels, *_rest: np.zeros(len(labels)),
        )

    def test_int8_without_loss_is_chosen(self):
        embedders = {"fp32": Embedder(NoisyEncoder(0.3)), "int8": Embedder(NoisyEncoder(0.3))}
        comparison = compare(embedders, labeled(120, 40), seed=7)
        assert comparison.chosen == "int8"
        assert comparison.loss == 0
        assert comparison.mean_cosine == pytest.approx(1, abs=1e-5)
        assert comparison.messages == 120
        assert "int8 loses 0.00 points of F1, under the 0.3 allowed" in comparison.reason

    @pytest.mark.usefixtures("_no_word_model")
    def test_int8_that_costs_quality_is_rejected(self):
        embedders = {"fp32": Embedder(NoisyEncoder(0.2)), "int8": Embedder(NoisyEncoder(2.0))}
        comparison = compare(embedders, labeled(120, 40), seed=7)
        assert comparison.chosen == "fp32"
        assert comparison.loss > LARGEST_LOSS
        assert "not under" in str(comparison)
        assert comparison.as_table()["chosen"] == "fp32"
        assert comparison.as_table()["int8"]["lowest_cosine"] == comparison.lowest_cosine

    @pytest.mark.usefixtures("_no_word_model")
    def test_result_depends_on_the_seed(self):
        embedders = {"fp32": Embedder(NoisyEncoder(0.4)), "int8": Embedder(NoisyEncoder(0.5))}
        frame = labeled(150, 50)
        first = compare(embedders, frame, seed=7)
        assert compare(embedders, frame, seed=7) == first
        assert compare(embedders, frame, seed=8) != first

    @pytest.mark.parametrize("positives", [3, 6])
    def test_sample_has_all_of_a_few_positives(self, positives):
        embedders = {"fp32": Embedder(NoisyEncoder(0.3)), "int8": Embedder(NoisyEncoder(0.3))}
        comparison = compare(embedders, labeled(3000, positives), seed=7)
        assert 1500 <= comparison.messages <= 1505

    def test_positives_may_be_near_duplicates(self):
        frame = labeled(60, 12)
        frame.loc[frame["label"] == 1, "msg"] = "1 the same flat to let in the same words"
        frame.loc[0, "msg"] = "1 quite another text about a house by the sea"
        embedders = {name: Embedder(NoisyEncoder(0.3)) for name in ("fp32", "int8")}
        assert compare(embedders, frame, seed=7).chosen == "int8"

    def test_tuned_encoder_is_compared_by_out_of_fold_logits(self):
        frame = labeled(120, 40)
        embedders = {"fp32": Embedder(NoisyEncoder(0.1)), "int8": Embedder(NoisyEncoder(3.0))}
        random_logits = np.random.default_rng(0).normal(size=120)
        tuned = FineTuned(None, Head(np.eye(8)[0], 0.0), random_logits, [])
        comparison = compare(embedders, frame, seed=7, tuned=tuned)
        assert comparison.figures["fp32"].average_precision < 0.6  # not the 1.0 of the embeddings
        tuned = replace(tuned, out_of_fold_logits=frame["label"].to_numpy() - 0.5)
        comparison = compare(embedders, frame, seed=7, tuned=tuned)
        assert comparison.figures["fp32"] == Figures(1.0, pytest.approx(1.0))
        assert comparison.figures["int8"].f1 < 0.9
        assert comparison.chosen == "fp32"

    def test_largest_loss_is_three_tenths_of_a_point(self):
        def comparison(int8: float) -> Comparison:
            figures = {"fp32": Figures(0.8, 0.8), "int8": Figures(int8, 0.8)}
            return Comparison(figures, 0.99, 0.98, 500, True)

        assert comparison(0.7971).chosen == "int8"
        assert comparison(0.81).chosen == "int8"
        assert comparison(0.7969).chosen == "fp32"
