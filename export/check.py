"""Compare an exported encoder with PyTorch."""

from collections.abc import Sequence

import numpy as np

from export.reference import PyTorchEncoder
from feedsieve.errors import FeedsieveError
from feedsieve.scoring.encoder import Encoder

MESSAGES = 64  # enough to cover all lengths
LARGEST_DIFFERENCE = {"fp32": 1e-4, "int8": 0.1}  # of one coordinate of a unit-length embedding
LOWEST_COSINE = {"fp32": 0.9999, "int8": 0.95}


class ExportError(FeedsieveError):
    """The ONNX file's embeddings are too far from PyTorch's. The message has the figures."""


def of_many_lengths(texts: Sequence[str], count: int = MESSAGES) -> list[str]:
    """Return up to `count` of `texts`, evenly spaced from the shortest to the longest."""
    by_length = sorted(set(texts), key=lambda text: (len(text), text))
    picked = np.linspace(0, len(by_length) - 1, min(count, len(by_length))).round().astype(int)
    return [by_length[index] for index in picked]


def check(pytorch: PyTorchEncoder, encoder: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """Return the differences and cosines between embeddings of `encoder` and PyTorch's.

    A sample of `texts` of all lengths is compared. Raises ExportError beyond the limits of the
    encoder's precision.
    """
    texts = of_many_lengths(texts)
    served = encoder.encode(texts)
    expected = pytorch.embed(encoder.tokenize(texts))
    cosine = (served * expected).sum(axis=1)
    figures = {
        "messages": len(texts),
        "largest_difference": float(np.abs(served - expected).max()),
        "lowest_cosine": float(cosine.min()),
        "mean_cosine": float(cosine.mean()),
    }
    precision = encoder.description.precision
    too_different = not figures["largest_difference"] <= LARGEST_DIFFERENCE[precision]
    if too_different or not figures["lowest_cosine"] >= LOWEST_COSINE[precision]:
        raise ExportError(
            f"the {precision} encoder differs from PyTorch's: {figures}; at most "
            f"{LARGEST_DIFFERENCE[precision]} and at least {LOWEST_COSINE[precision]} are allowed"
        )
    return figures
