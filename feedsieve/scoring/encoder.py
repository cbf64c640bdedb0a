"""Text to embedding: a tokenizer and a BERT encoder in ONNX, on CPU."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from feedsieve.scoring.backend_selection import select_backend
from feedsieve.scoring.backends import PendingEmbeddings
from feedsieve.scoring.json_file import JsonFile
from feedsieve.scoring.padding import batches, padded, padded_length
from feedsieve.scoring.reference import ReferenceEmbeddings, ReferenceRun
from feedsieve.settings import settings
from feedsieve.text import plain

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
DESCRIPTION_FILE = "encoder.json"
BATCHES_PER_THREAD = 2  # one that runs, and one queued so that the thread need not wait for Python
TEXTS_PER_TOKENIZATION = 4096  # bounds memory while embedding a corpus


@dataclass(frozen=True)
class EncoderDescription(JsonFile):
    """The content of `encoder.json`: how the ONNX file was made and what input it expects."""

    file_name = DESCRIPTION_FILE
    indent = 2

    source: str
    pooling: str  # "mean" or "cls", inside the graph
    prefix: str  # put before every text
    max_tokens: int  # longer texts are cut, special tokens included
    dimension: int  # floats in an embedding
    precision: str  # "fp32" or "int8"
    check: dict[str, int | float]  # agreement with PyTorch, see export.check


class EncoderTokenizer:
    """Turns texts into an encoder's token ids."""

    def __init__(self, folder: Path, description: EncoderDescription) -> None:
        """Load the tokenizer of the encoder in `folder`."""
        self._prefix = description.prefix
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(description.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, at most `max_tokens`, special tokens included."""
        prepared = [self._prefix + plain(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prepared)]


class Encoder:
    """Turns texts into unit-length embeddings; safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        backend: str | None = None,
        excluded: Mapping[str, str] | None = None,
    ) -> None:
        """Load an exported encoder from `folder`; `threads` 0 means one a core.

        Each thread runs batches of its own, so embeddings do not depend on their number. The
        backend is `backend` or FEEDSIEVE_BACKEND if named, or else the fastest that reproduces the
        model's reference outputs on this CPU. `excluded` maps backends to the reason not to use
        them.

        Raises NoCorrectBackend if no backend reproduces the reference outputs, OSError if a file is
        missing, ValueError if one is damaged.
        """
        self.folder = folder
        self.description = EncoderDescription.read(folder)
        self.threads = threads or os.cpu_count() or 1
        self._tokenizer = EncoderTokenizer(folder, self.description)
        self.reference = ReferenceEmbeddings.read_if_present(folder)
        self._reference_run: ReferenceRun | None = None
        if self.reference:
            tokens = self.tokenize(self.reference.texts)
            limit = self.description.max_tokens
            self._reference_run = ReferenceRun(self.reference, tokens, limit)
        self.backend, self.selection = select_backend(
            folder / MODEL_FILE,
            self.description.precision,
            self.threads,
            self._reference_run,
            backend or settings().backend,
            excluded,
        )

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Return embeddings of shape (texts, dimension), 32-bit floats, in the order of `texts`.

        `progress` is called with the number of texts done since its last call.
        """
        embeddings = np.empty((len(texts), self.description.dimension), np.float32)
        for rows, pending in self.embed(texts):
            embeddings[rows] = pending.result()
            if progress:
                progress(len(rows))
        return embeddings

    def encode_reference(self) -> np.ndarray:
        """Return embeddings of the reference texts, (texts, dimension).

        Raises ValueError if the model has none.
        """
        if self._reference_run is None:
            raise ValueError(f"{self.folder} has no reference outputs")
        return self._reference_run.embed(self.backend)

    def embed(
        self,
        texts: Sequence[str],
        all_submitted: Callable[[], object] | None = None,
        eager: bool = True,
    ) -> Iterator[tuple[list[int], PendingEmbeddings]]:
        """Yield the rows of each batch of `texts`, and a future of their embeddings.

        The next batches are submitted before a batch is yielded, so the caller can work while they
        run; later ones wait for the next step, so other callers can use the backend in between.
        Unless `eager`, no second batch is queued for a thread. `all_submitted` is called when the
        last batch is submitted.
        """
        ahead = self.threads * BATCHES_PER_THREAD if eager else self.threads - 1
        for start in range(0, len(texts), TEXTS_PER_TOKENIZATION):
            tokens = self.tokenize(texts[start : start + TEXTS_PER_TOKENIZATION])
            submitted: deque[tuple[list[int], PendingEmbeddings]] = deque()
            for rows in batches([self._padded_length(len(ids)) for ids in tokens]):
                pending = self.submit([tokens[row] for row in rows])
                submitted.append(([start + row for row in rows], pending))
                if len(submitted) > ahead:
                    yield submitted.popleft()
            if all_submitted and start + TEXTS_PER_TOKENIZATION >= len(texts):
                all_submitted()
            yield from submitted

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, at most `max_tokens`, special tokens included."""
        return self._tokenizer.tokenize(texts)

    def submit(self, tokens: Sequence[Sequence[int]]) -> PendingEmbeddings:
        """Submit one batch, padded for its longest text; return a future of its embeddings."""
        longest = max(map(len, tokens))
        return self.backend.submit(padded(tokens, self._padded_length(longest)))

    def _padded_length(self, tokens: int) -> int:
        return padded_length(tokens, self.description.max_tokens)
