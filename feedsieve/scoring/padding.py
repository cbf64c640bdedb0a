"""Padding and batching of token ids, the same for every backend."""

from collections.abc import Iterator, Sequence

import numpy as np

# Texts are padded to a multiple of this, whatever the batch: the padding changes the last bits of
# an embedding. A backend also compiles for a tenth of the shapes.
PAD_TO = 16
TOKENS_PER_BATCH = 512  # padding included; larger batches gain nothing and take memory


def padded_length(tokens: int, max_tokens: int) -> int:
    """Return the padded length of a text of `tokens` tokens."""
    return max(tokens, min(-(-tokens // PAD_TO) * PAD_TO, max_tokens))


def padded(tokens: Sequence[Sequence[int]], length: int) -> dict[str, np.ndarray]:
    """Return BERT's inputs for a batch: ids and mask, each int64 of shape (texts, length)."""
    shape = len(tokens), length
    input_ids, attention_mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, ids in enumerate(tokens):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the rows of each batch: one padded length, at most `TOKENS_PER_BATCH` tokens.

    A longer text is a batch of its own. Longest first, so that the first batch shows whether memory
    suffices. The number of texts is a power of two, because a backend compiles for each shape.
    """
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    for length, rows in sorted(by_length.items(), reverse=True):
        most = max(1, TOKENS_PER_BATCH // length)
        while rows:
            count = 1 << min(most, len(rows)).bit_length() - 1
            yield rows[:count]
            rows = rows[count:]
