"""What is compared: the same 12-layer encoder as others would run it, in transformers and ONNX.

These stay what they are while what we serve changes, so they have sessions of their own. The one
that is ours shows what precision and engine alone give, whatever the served encoder's layers.
"""

import json
import logging
from collections.abc import Iterator, Sequence
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
from tokenizers import Tokenizer
from transformers import BertModel

from export import sources
from export.onnx import pooled, write_fp32, write_plain
from export.pipeline import export_encoder
from feedsieve.padding import padded
from feedsieve.text import plain

TOKENS_A_BATCH = 2048  # padding included; of 512 to 8,192 none is faster in 32 bits
OPSET = 17
MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class Baselines:
    """Folders that hold the encoder, each with its tokenizer, and how it is fed."""

    transformers: Path  # as `save_pretrained` leaves it
    fp32: Path  # model.onnx: fused, pooled, unit length
    int8: Path  # the same, quantised as Optimum's guide does: dynamic, per channel
    hidden: Path  # model.onnx: as Optimum exports it, a vector a token
    ours: Path  # as feedsieve exports it, in 8 bits
    prefix: str  # put before every text
    max_tokens: int  # longer texts are cut, special tokens included
    dimension: int  # floats in an embedding


def write(source: str, folder: Path, texts: Sequence[str], max_tokens: int) -> Baselines:
    """Export an encoder in each way; ours looks at `texts` for it.

    All cut texts after `max_tokens` if the encoder does not cut them before.

    Raises what `export.sources.load` and `export.pipeline.export_encoder` do.
    """
    encoder = sources.load(source)
    encoder = replace(encoder, max_tokens=min(encoder.max_tokens, max_tokens))
    places = {name: folder / name for name in ("transformers", "fp32", "int8", "hidden")}
    for place in places.values():
        place.mkdir()
        encoder.tokenizer.save_pretrained(place)
    encoder.model.save_pretrained(places["transformers"])
    logging.getLogger("optimum").setLevel(logging.ERROR)
    fp32, model = places["fp32"] / MODEL_FILE, pooled(encoder)
    write_plain(model, fp32)
    write_fp32(fp32, model, fp32)
    # The quantiser needs every tensor's type, which plain ONNX cannot infer behind fused operators.
    fused = SymbolicShapeInference.infer_shapes(onnx.load(str(fp32)), auto_merge=True)
    onnx.save(fused, str(fp32))
    ORTQuantizer.from_pretrained(fp32.parent, file_name=fp32.name).quantize(
        AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True),
        save_dir=places["int8"],
        file_suffix="",
    )
    plain_export = BertOnnxConfig(encoder.model.config, task="feature-extraction")
    export(encoder.model, plain_export, places["hidden"] / MODEL_FILE, opset=OPSET)
    # infinity-emb cuts texts where the positions end; here it is to cut them where the others do.
    settings = encoder.model.config.to_dict() | {"max_position_embeddings": encoder.max_tokens}
    (places["hidden"] / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    ours = export_encoder(encoder, folder / "ours", texts).fastest.folder
    return Baselines(
        **places,
        ours=ours,
        prefix=encoder.prefix,
        max_tokens=encoder.max_tokens,
        dimension=encoder.model.config.hidden_size,
    )


class _Tokens:
    """Texts to token ids, the same for all."""

    def __init__(self, folder: Path, of: Baselines) -> None:
        self._prefix, self._dimension = of.prefix, of.dimension
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(of.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        prepared = [self._prefix + plain(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prepared)]


class Transformers(_Tokens):
    """PyTorch, eagerly; a text at a time, or padded batches of texts sorted by length."""

    def __init__(self, of: Baselines, tokens_a_batch: int = TOKENS_A_BATCH) -> None:
        super().__init__(of.transformers, of)
        self._tokens_a_batch = tokens_a_batch
        self._model = BertModel.from_pretrained(of.transformers, add_pooling_layer=False).eval()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit-length embeddings, (texts, hidden)."""
        tokens = self.tokenize(texts)
        embeddings = np.empty((len(texts), self._dimension), np.float32)
        for rows, inputs in _batches(tokens, self._tokens_a_batch):
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
                hidden = self._model(**tensors).last_hidden_state
                mask = tensors["attention_mask"].unsqueeze(-1)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                embeddings[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return embeddings


class OnnxRuntime(_Tokens):
    """onnxruntime on a fused and pooled export, in padded batches of texts sorted by length."""

    def __init__(self, folder: Path, of: Baselines) -> None:
        super().__init__(folder, of)
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit-length embeddings, (texts, hidden)."""
        tokens = self.tokenize(texts)
        embeddings = np.empty((len(texts), self._dimension), np.float32)
        for rows, inputs in _batches(tokens, TOKENS_A_BATCH):
            embeddings[rows] = self._session.run(["embedding"], inputs)[0]
        return embeddings


def _batches(
    tokens: Sequence[Sequence[int]], most: int
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Yield the rows and the padded inputs of each batch of at most `most` tokens, or one text."""
    rows: list[int] = []
    for row in sorted(range(len(tokens)), key=lambda row: -len(tokens[row])):
        if rows and (len(rows) + 1) * len(tokens[rows[0]]) > most:
            yield rows, padded([tokens[row] for row in rows], len(tokens[rows[0]]))
            rows = []
        rows.append(row)
    if rows:
        yield rows, padded([tokens[row] for row in rows], len(tokens[rows[0]]))
