"""Encoder to ONNX: pooling inside the graph, in 32-bit floats or 8-bit integers."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rich
import torch
from onnx import TensorProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array, to_array
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from optimum.exporters.onnx.convert import export as optimum_export
from optimum.exporters.onnx.model_configs import BertOnnxConfig
from transformers import BertModel

from export.sources import Source

OPSET = 17
# The two matrix products of attention, as PyTorch's exporter names the nodes
ATTENTION_PRODUCTS = r".*/attention/self/MatMul(_\d+)?"


class PooledBert(BertModel):
    """BERT that returns one unit-length embedding per text, (batch, hidden), 32-bit floats."""

    pooling = "mean"

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = super().forward(input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return {"embedding": torch.nn.functional.normalize(pooled, dim=-1)}


class PooledBertOnnxConfig(BertOnnxConfig):
    """The inputs and the output of `PooledBert`, for Optimum."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        axes = {0: "batch", 1: "tokens"}
        return {"input_ids": axes, "attention_mask": axes}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"embedding": {0: "batch"}}


def pooled(source: Source) -> PooledBert:
    """Return the PyTorch model to export, which the ONNX file must agree with."""
    model = PooledBert(source.model.config, add_pooling_layer=False)
    model.load_state_dict(source.model.state_dict())
    model.pooling = source.pooling
    return model.eval()


def write_plain(model: PooledBert, path: Path) -> None:
    """Export `model` with Optimum to `path`. `write_fp32` and `write_int8` start from that file."""
    config = PooledBertOnnxConfig(model.config, task="feature-extraction")
    optimum_export(model, config, path, opset=OPSET)


def write_fp32(plain: Path, model: PooledBert, path: Path) -> None:
    """Fuse BERT's operators in the file `plain`, so that onnxruntime runs them faster."""
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    fused = optimize_model(
        str(plain),
        model_type="bert",
        num_heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
        optimization_options=FusionOptions("bert"),
    )
    fused.save_model_to_file(str(path))


def write_int8(plain: Path, tokens: Sequence[Sequence[int]], path: Path) -> None:
    """Quantise weights and activations of the file `plain` with NNCF.

    The ranges of activations are calibrated on `tokens`, the token ids of a sample of messages.
    SmoothQuant (Xiao et al., https://arxiv.org/abs/2211.10438) moves the outliers in activations
    of trained BERT encoders into the weights, which have none.
    """
    os.environ.setdefault("NNCF_CI", "1")  # disables NNCF's telemetry
    import nncf  # takes two seconds, and reading an encoder does not need it

    # Not nncf.set_log_level, which also silences handlers that others added to its logger.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    rich.reconfigure(quiet=True, force_jupyter=False)  # no progress bars in our output
    inputs = [
        {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for ids in tokens
    ]
    quantized = nncf.quantize(
        onnx.load(str(plain)),
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(patterns=[ATTENTION_PRODUCTS]),
    )
    _dequantise_after_lookup(quantized.graph)
    onnx.save(quantized, str(path))


def _dequantise_after_lookup(graph: onnx.GraphProto) -> None:
    """Dequantise the rows looked up in an int8 embedding table, not the whole table.

    Otherwise onnxruntime dequantises the table in every run, and OpenVINO does so once, but the
    table then takes four times the memory.
    """
    tables = {initializer.name: initializer for initializer in graph.initializer}
    scalings = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in graph.node:
        scaling = scalings.get(node.input[0]) if node.op_type == "Gather" else None
        if scaling and not to_array(tables[scaling.input[2]]).any():  # no zero points
            table, scales, _zero_points = scaling.input
            rows, output = node.input[1], node.output[0]
            last = from_array(np.array([-1]), f"{output}_last_axis")
            graph.initializer.append(last)
            nodes += [
                make_node("Gather", [table, rows], [f"{output}_8_bits"]),
                make_node(
                    "Cast", [f"{output}_8_bits"], [f"{output}_unscaled"], to=TensorProto.FLOAT
                ),
                make_node("Gather", [scales, rows], [f"{output}_row_scales"]),
                make_node("Unsqueeze", [f"{output}_row_scales", last.name], [f"{output}_scales"]),
                make_node("Mul", [f"{output}_unscaled", f"{output}_scales"], [output]),
            ]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:]
    graph.node.extend(
        node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in used
    )
    for name in {name for node in scalings.values() for name in node.input} - {
        name for node in graph.node for name in node.input
    }:
        graph.initializer.remove(tables[name])
