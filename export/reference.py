"""Reference outputs of an export: texts of all lengths and their expected embeddings."""

from bisect import bisect_right
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from export.onnx import PooledBert
from feedsieve.scoring.backends import OUTPUT
from feedsieve.scoring.classifier import Classifier
from feedsieve.scoring.encoder import MODEL_FILE, EncoderDescription, EncoderTokenizer
from feedsieve.scoring.padding import padded
from feedsieve.scoring.reference import ReferenceEmbeddings, ReferenceScores

# Lengths of the reference texts, in tokens. Most are near 16, 32 and 64, where backends change
# kernels; wrong backends were worst from 18 to 31 tokens.
LENGTHS = (
    *(1, 3, 4, 5, 6, 8, 10, 12, 14, 15, 16, 17, 18, 20, 22, 24, 26, 28, 30, 31, 32, 33, 34),
    *(36, 40, 44, 48, 52, 56, 60, 62, 63, 64, 65, 66, 72, 80, 96, 112, 128, 144, 160, 192, 224),
    *(256, 320, 384, 448, 512),
)  # fmt: skip
_WORDS = (files("export") / "reference_texts.txt").read_text(encoding="utf-8").split()
_STEP = 37  # words between the starts of two texts


class PyTorchEncoder:
    """The encoder in PyTorch; it embeds each text once, for all precisions that are compared."""

    def __init__(self, model: PooledBert) -> None:
        self._model = model
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def embed(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the embeddings of texts given as token ids, (texts, dimension).

        One text at a time: without padding, a backend cannot share an error of padding with it.
        """
        for ids in map(tuple, tokens):
            if ids not in self._known:
                input_ids = torch.tensor([ids])
                with torch.inference_mode():
                    output = self._model(input_ids, torch.ones_like(input_ids))
                self._known[ids] = output["embedding"][0].numpy()
        return np.array([self._known[tuple(ids)] for ids in tokens])


def reference_texts(tokenizer: EncoderTokenizer, max_tokens: int) -> list[str]:
    """Return one text for each of `LENGTHS` up to `max_tokens`.

    A text has that number of tokens, or slightly fewer where words do not fit exactly.
    """
    lengths = [length for length in LENGTHS if length < max_tokens] + [max_tokens]
    starts = (number * _STEP for number in range(len(lengths)))
    return [
        _text_of_length(tokenizer, length, start)
        for length, start in zip(lengths, starts, strict=True)
    ]


def _text_of_length(tokenizer: EncoderTokenizer, length: int, start: int) -> str:
    """Return the longest run of words from word `start` with at most `length` tokens."""
    words = [_WORDS[(start + at) % len(_WORDS)] for at in range(length)]

    def tokens_of(count: int) -> int:
        return len(tokenizer.tokenize([" ".join(words[:count])])[0])

    fitting = bisect_right(range(len(words) + 1), length, key=tokens_of) - 1
    return " ".join(words[: max(0, fitting)])


def reference_embeddings(pytorch: PyTorchEncoder, folder: Path) -> ReferenceEmbeddings:
    """Return the reference outputs of the encoder in `folder`, exported from that in PyTorch."""
    description = EncoderDescription.read(folder)
    tokenizer = EncoderTokenizer(folder, description)
    texts = reference_texts(tokenizer, description.max_tokens)
    tokens = tokenizer.tokenize(texts)
    by_pytorch = pytorch.embed(tokens)
    if description.precision == "fp32":
        return ReferenceEmbeddings(texts, by_pytorch, by_pytorch)
    return ReferenceEmbeddings(texts, by_pytorch, embed_as_defined(folder / MODEL_FILE, tokens))


def reference_of_file(folder: Path) -> ReferenceEmbeddings:
    """Return reference outputs computed from the ONNX file alone, without PyTorch weights."""
    description = EncoderDescription.read(folder)
    tokenizer = EncoderTokenizer(folder, description)
    texts = reference_texts(tokenizer, description.max_tokens)
    expected = embed_as_defined(folder / MODEL_FILE, tokenizer.tokenize(texts))
    return ReferenceEmbeddings(texts, expected, expected)


def write_reference_scores(reference: ReferenceEmbeddings, folder: Path) -> None:
    """Write the scores of the classifier in `folder` for the expected embeddings.

    Unlike scores of a backend's embeddings, these do not depend on the CPU.
    """
    scores = Classifier.load(folder).score(reference.texts, reference.expected)
    ReferenceScores(scores).write(folder)


def embed_as_defined(file: Path, tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the embeddings that the ONNX file defines, (texts, dimension).

    onnxruntime computes operator by operator in 32-bit floats, without the CPU's int8 or bf16
    instructions. Slow: ten texts a second with a 12-layer encoder.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return np.array([session.run([OUTPUT], padded([ids], len(ids)))[0][0] for ids in tokens])
