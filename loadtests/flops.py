"""How many floating-point operations an encoder's texts take, from the shapes of its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

LOOK_UP = {"Gather", "EmbedLayerNormalization", "QEmbedLayerNormalization"}  # rows of a table
PASS_ON = {"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity"}


@dataclass(frozen=True)
class Shape:
    """What an encoder multiplies each token by, and how deep and wide it is."""

    layers: int
    hidden: int
    weights: int  # in all matrices that tokens are multiplied by

    @classmethod
    def of(cls, file: Path, hidden: int) -> "Shape":
        """Return the shape of the BERT in an ONNX file, whose embeddings have `hidden` floats.

        Each layer has one matrix that makes a token narrower: the second feed-forward one.
        """
        graph = onnx.load(str(file)).graph
        made_of = {name: node for node in graph.node for name in node.output}
        tables = {
            _origin(name, made_of)
            for node in graph.node
            if node.op_type in LOOK_UP
            for name in node.input
        }
        matrices = [
            tuple(tensor.dims)
            for tensor in graph.initializer
            if len(tensor.dims) == 2 and min(tensor.dims) > 1 and tensor.name not in tables
        ]
        layers = sum(rows > columns for rows, columns in matrices)
        return cls(layers, hidden, sum(rows * columns for rows, columns in matrices))

    def flops(self, tokens: Sequence[int]) -> int:
        """Return the operations for texts of so many tokens each, an addition counting as one.

        Matrix products only: with the weights, of queries with keys, of attention with values.
        """
        attention = 4 * self.layers * self.hidden
        return sum(2 * self.weights * count + attention * count**2 for count in tokens)


def _origin(name: str, made_of: dict[str, onnx.NodeProto]) -> str:
    """Return the tensor that `name` is another form of."""
    while name in made_of and made_of[name].op_type in PASS_ON:
        name = made_of[name].input[0]
    return name
