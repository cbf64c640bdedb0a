"""Write an encoder as ONNX: pooling inside the graph, fused, in 32-bit floats or 8-bit integers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from optimum.exporters.onnx.convert import export as optimum_export
from optimum.exporters.onnx.model_configs import BertOnnxConfig
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import BertModel

from export.outliers import spoilt_by_8_bits
from export.sources import Source

MODEL_FILE = "model.onnx"
OPSET = 17


class PooledBert(BertModel):
    """BERT whose output is one unit-length embedding a text, (batch, hidden) in 32-bit floats."""

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
    """Tells Optimum the inputs and the output of `PooledBert`."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        axes = {0: "batch", 1: "tokens"}
        return {"input_ids": axes, "attention_mask": axes}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"embedding": {0: "batch"}}


def pooled(source: Source) -> PooledBert:
    """Return the PyTorch model that the ONNX file must agree with."""
    model = PooledBert(source.model.config, add_pooling_layer=False)
    model.load_state_dict(source.model.state_dict())
    model.pooling = source.pooling
    return model.eval()


def write_fp32(model: PooledBert, folder: Path) -> Path:
    """Export `model` with Optimum, fuse BERT's operators, and return the file in `folder`."""
    path = folder / MODEL_FILE
    config = PooledBertOnnxConfig(model.config, task="feature-extraction")
    optimum_export(model, config, path, opset=OPSET)
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    fused = optimize_model(
        str(path),
        model_type="bert",
        num_heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
        optimization_options=FusionOptions("bert"),
    )
    # The quantiser needs every tensor's type, which plain ONNX cannot infer behind fused operators.
    onnx.save(SymbolicShapeInference.infer_shapes(fused.model, auto_merge=True), str(path))
    return path


def write_int8(fp32_file: Path, folder: Path, tokens: Sequence[Sequence[int]]) -> Path:
    """Quantise with Optimum (dynamic, per channel) and return the file in `folder`.

    Products that 8 bits would spoil on `tokens`, token ids of a few messages, stay in 32 bits.

    Weights keep 7 of their 8 bits: without VNNI, x86 adds two 8-bit products in 16 bits, and full
    range saturates there. So one file gives the same answers on every machine.
    """
    logging.getLogger("optimum").setLevel(logging.ERROR)  # it misses a file that nobody needs
    quantizer = ORTQuantizer.from_pretrained(fp32_file.parent, file_name=fp32_file.name)
    config = AutoQuantizationConfig.avx512_vnni(
        is_static=False, per_channel=True, nodes_to_exclude=spoilt_by_8_bits(fp32_file, tokens)
    )
    config.reduce_range = True
    quantizer.quantize(config, save_dir=folder, file_suffix="")
    return folder / fp32_file.name
