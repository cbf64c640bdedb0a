from dataclasses import replace

import numpy as np
import pytest
import torch
from test_finetune import messages
from tiny_bert import save_tiny_bert

from export import onnx, sources
from export.sources import Source
from train.encoder.layers import UpperLayers, frozen_states, pad
from train.encoder.trainer import BATCH, LengthGroupedSampler


@pytest.fixture
def source(tmp_path) -> Source:
    return sources.load(str(save_tiny_bert(tmp_path / "encoder")))


class TestLengthGroupedSampler:
    LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)

    def test_epoch_has_every_row_once(self):
        assert sorted(LengthGroupedSampler(self.LENGTHS, 7)) == list(range(1000))
        assert len(LengthGroupedSampler(self.LENGTHS, 7)) == 1000

    def test_batch_has_messages_of_similar_length(self):
        rows = list(LengthGroupedSampler(self.LENGTHS, 7))
        batches = [self.LENGTHS[rows[start : start + BATCH]] for start in range(0, 1000, BATCH)]
        assert np.mean([np.ptp(batch) for batch in batches]) < 15

    def test_order_depends_on_seed_and_epoch(self):
        first, second = LengthGroupedSampler(self.LENGTHS, 7), LengthGroupedSampler(self.LENGTHS, 7)
        second.set_epoch(1)
        assert list(first) == list(first) != list(second)
        first.set_epoch(1)
        assert list(first) == list(second)
        assert list(LengthGroupedSampler(self.LENGTHS, 8)) != list(
            LengthGroupedSampler(self.LENGTHS, 7)
        )


class TestLayers:
    @pytest.mark.parametrize("pooling", ["mean", "cls"])
    def test_frozen_and_upper_layers_equal_the_encoder(self, tmp_path, pooling):
        source = sources.load(str(save_tiny_bert(tmp_path / "tiny", pooling=pooling)))
        texts, _labels = messages()
        hidden = frozen_states(source, texts[:5], 1)
        upper = UpperLayers(source, 1).eval()
        tokens = source.tokenizer(texts[:5], padding=True, return_tensors="pt")
        with torch.inference_mode():
            whole = onnx.pooled(source)(tokens.input_ids, tokens.attention_mask)["embedding"]
            logits = [
                upper(states[None].float(), torch.ones(1, len(states)))["logits"].item()
                for states in hidden
            ]
        exported = upper.exported_head().logits(whole.numpy())
        assert exported == pytest.approx(np.array(logits), abs=0.03)  # the states are bfloat16

    def test_padding_does_not_change_logits(self, source):
        texts, _labels = messages()
        hidden = frozen_states(source, texts[:5], 1)
        upper = UpperLayers(source, 1).eval()
        padded, mask = pad([states.float() for states in hidden])
        with torch.inference_mode():
            together = upper(padded, mask)["logits"]
            alone = [upper(s[None].float(), torch.ones(1, len(s)))["logits"] for s in hidden]
        assert together.numpy() == pytest.approx(torch.cat(alone).numpy(), abs=1e-4)

    def test_long_texts_are_truncated(self, source):
        [states] = frozen_states(source, ["flat " * 500], 1)
        assert states.shape == (64, 32)
        [states] = frozen_states(replace(source, max_tokens=40), ["flat " * 500], 1)
        assert states.shape == (40, 32)
