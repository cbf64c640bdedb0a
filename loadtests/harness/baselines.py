"""The same 12-layer encoder as others would run it; independent of changes to our backends."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from optimum.exporters.onnx.convert import export
from optimum.exporters.onnx.model_configs import BertOnnxConfig
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import BertModel

from export import sources
from export.onnx import pooled, write_fp32, write_plain
from export.pipeline import export_encoder
from feedsieve.scoring.encoder import MODEL_FILE, EncoderDescription, EncoderTokenizer
from feedsieve.scoring.padding import padded

TOKENS_A_BATCH = 2048  # padding included; in fp32 no size from 512 to 8,192 is faster


@dataclass(frozen=True)
class Baselines:
    """Folders with the encoder and its tokenizer, and how to feed it."""

    transformers: Path  # save_pretrained
    fp32: Path  # ONNX: fused, pooled, unit length
    int8: Path  # fp32 quantised as in Optimum's guide: dynamic, per channel
    hidden: Path  # ONNX as Optimum exports it: a vector per token
    ours: Path  # ONNX as `export` writes it, in int8: our gain without a smaller encoder
    description: EncoderDescription  # of `ours`; prefix, limit and dimension hold for all

    @classmethod
    def write(cls, source: str, folder: Path, texts: Sequence[str], max_tokens: int) -> "Baselines":
        """Export an encoder in each way, ours calibrated on `texts`, cut after `max_tokens`.

        Raises as `export.sources.load` and `export.pipeline.export_encoder` do.
        """
        encoder = sources.load(source)
        encoder = replace(encoder, max_tokens=min(encoder.max_tokens, max_tokens))
        places = {name: folder / name for name in ("transformers", "fp32", "int8", "hidden")}
        for place in places.values():
            place.mkdir(parents=True)
            encoder.tokenizer.save_pretrained(place)
        encoder.model.save_pretrained(places["transformers"])
        logging.getLogger("optimum").setLevel(logging.ERROR)
        fp32, model = places["fp32"] / MODEL_FILE, pooled(encoder)
        write_plain(model, fp32)
        write_fp32(fp32, model, fp32)
        # The quantiser needs all tensor types; plain ONNX cannot infer those of fused operators.
        fused = SymbolicShapeInference.infer_shapes(onnx.load(str(fp32)), auto_merge=True)
        onnx.save(fused, str(fp32))
        ORTQuantizer.from_pretrained(fp32.parent, file_name=fp32.name).quantize(
            AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True),
            save_dir=places["int8"],
            file_suffix="",
        )
        config = encoder.model.config
        onnx_config = BertOnnxConfig(config, task="feature-extraction")
        export(encoder.model, onnx_config, places["hidden"] / MODEL_FILE, opset=17)
        # infinity-emb cuts texts at the number of positions.
        limited = config.to_dict() | {"max_position_embeddings": encoder.max_tokens}
        (places["hidden"] / "config.json").write_text(json.dumps(limited), encoding="utf-8")
        ours = export_encoder(encoder, folder / "ours", texts).fastest.folder
        return cls(**places, ours=ours, description=EncoderDescription.read(ours))


class _Sorted(ABC):
    """An engine that encodes padded batches of texts sorted by length."""

    library, precision = "transformers", "fp32"

    def __init__(self, folder: Path, baselines: Baselines, tokens_a_batch: int) -> None:
        self._tokens_a_batch = tokens_a_batch
        self._dimension = baselines.description.dimension
        self.tokenize = EncoderTokenizer(folder, baselines.description).tokenize

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit-length embeddings, (texts, dimension)."""
        tokens = self.tokenize(texts)
        embeddings = np.empty((len(texts), self._dimension), np.float32)
        rows = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
        while rows:
            longest = len(tokens[rows[0]])
            count = max(1, self._tokens_a_batch // longest)
            batch, rows = rows[:count], rows[count:]
            embeddings[batch] = self._embed(padded([tokens[row] for row in batch], longest))
        return embeddings

    @abstractmethod
    def _embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return unit-length embeddings of one padded batch, (texts, dimension)."""


class Transformers(_Sorted):
    """PyTorch in eager mode. One token a batch means one text a batch."""

    def __init__(self, baselines: Baselines, tokens_a_batch: int = TOKENS_A_BATCH) -> None:
        folder = baselines.transformers
        super().__init__(folder, baselines, tokens_a_batch)
        self._model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()

    def _embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.inference_mode():
            hidden = self._model(**tensors).last_hidden_state
            mask = tensors["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean, dim=-1).numpy()


class OnnxRuntime(_Sorted):
    """onnxruntime with its default settings, on a fused and pooled export."""

    library = "onnxruntime"

    def __init__(self, folder: Path, baselines: Baselines) -> None:
        super().__init__(folder, baselines, TOKENS_A_BATCH)
        self.precision = folder.name
        file, providers = str(folder / MODEL_FILE), ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(file, providers=providers)

    def _embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return self._session.run(["embedding"], inputs)[0]
