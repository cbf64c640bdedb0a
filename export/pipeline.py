"""From a source to a checked encoder folder that the runtime loads."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export import check, onnx
from export.sources import Source
from feedsieve.encoder import MODEL_FILE, TOKENIZER_FILE, Encoder, EncoderDescription

MAX_TOKENS = 256  # 95 % of messages are shorter; the cost of a text grows with its tokens
PRECISIONS = ("fp32", "int8")


def export_encoder(
    source: Source, folder: Path, texts: Sequence[str], threads: int = 0
) -> dict[str, Encoder]:
    """Write `folder/fp32` and `folder/int8`, compare both with PyTorch on `texts`, load both.

    Raises `check.BadExport` if one differs too much.
    """
    model = onnx.pooled(source)
    files = {precision: folder / precision for precision in PRECISIONS}
    for path in files.values():
        path.mkdir(parents=True)
    fp32_file = onnx.write_fp32(model, files["fp32"])
    onnx.write_int8(fp32_file, files["int8"])
    encoders = {}
    for precision, path in files.items():
        write_tokenizer(source, path / TOKENIZER_FILE)
        description = EncoderDescription(
            source=source.name,
            pooling=source.pooling,
            prefix=source.prefix,
            max_tokens=min(MAX_TOKENS, source.model.config.max_position_embeddings),
            dimension=source.model.config.hidden_size,
            precision=precision,
            check={},
        )
        description.write(path)
        encoder = Encoder(path, threads)
        description = replace(description, check=check.check(model, encoder, texts))
        description.write(path)
        encoder.description = description
        encoders[precision] = encoder
        keep_only(path)
    return encoders


def write_tokenizer(source: Source, path: Path) -> None:
    """Write the tokenizer without padding or truncation, which the runtime sets."""
    tokenizer = source.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    settings = json.loads(tokenizer.to_str())
    path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


def keep_only(folder: Path) -> None:
    """Delete what Optimum leaves beside the files that the runtime reads."""
    for path in folder.iterdir():
        if path.name not in (MODEL_FILE, TOKENIZER_FILE, "encoder.json"):
            path.unlink()
