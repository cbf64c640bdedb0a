"""Find the matrix products that 8 bits would spoil: those whose inputs have outliers.

Dynamic quantisation spreads 256 steps over the range of a whole tensor. In the feed-forward parts
of trained BERT encoders a few activations are hundreds of times as large as the rest (Bondarenko,
Nagel and Blankevoort, EMNLP 2021, arXiv:2109.12948), so the rest is left with a step or two.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

NOISE_TO_SIGNAL = 0.15  # rounding error over spread; the rule and its figures: docs/decisions
MESSAGES = 24


def spoilt_by_8_bits(fp32_file: Path, tokens: Sequence[Sequence[int]]) -> list[str]:
    """Return the names of the MatMul nodes whose rounded input would be too noisy on `tokens`.

    The noise of rounding to a step is step / sqrt(12); it is compared with the input's standard
    deviation, each text by itself, and the median over texts decides.
    """
    graph = onnx.load(str(fp32_file))
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = {
        node.name: node.input[0]
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    }
    wanted = list(dict.fromkeys(inputs.values()))
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    noise: dict[str, list[float]] = {name: [] for name in wanted}
    for ids in tokens:
        input_ids = np.array([ids])
        feed = {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}
        for name, values in zip(wanted, session.run(wanted, feed), strict=True):
            noise[name].append(_noise_to_signal(values))
    return [node for node, name in inputs.items() if np.median(noise[name]) > NOISE_TO_SIGNAL]


def _noise_to_signal(values: np.ndarray) -> float:
    step = (max(float(values.max()), 0) - min(float(values.min()), 0)) / 255
    spread = float(values.std())
    return step / np.sqrt(12) / spread if spread else 0.0
