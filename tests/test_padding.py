"""Padded batches of token ids."""

from hypothesis import given
from hypothesis import strategies as st

from feedsieve.scoring.padding import TOKENS_PER_BATCH, batches, padded


class TestBatches:
    @given(st.lists(st.integers(1, 20).map(lambda sixteens: 16 * sixteens), max_size=200))
    def test_each_row_is_in_one_batch_of_its_length(self, lengths):
        found = list(batches(lengths))
        assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
        for batch in found:
            (length,) = {lengths[row] for row in batch}
            assert len(batch) * length <= TOKENS_PER_BATCH
            assert len(batch) in (1, 2, 4, 8, 16, 32)

    def test_longest_batches_come_first(self):
        assert list(batches([16, 160, 16, 160, 160, 16])) == [[1, 3], [4], [0, 2], [5]]

    def test_text_longer_than_a_batch_is_alone(self):
        assert list(batches([16, 600, 600])) == [[1], [2], [0]]

    def test_padding_is_masked(self):
        inputs = padded([[5, 6, 7], [8]], 4)
        assert inputs["input_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
        assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
