"""Text to embedding: a tokenizer and a BERT encoder in ONNX, on CPU."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from feedsieve import engines
from feedsieve.text import plain

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
DESCRIPTION_FILE = "encoder.json"
# Texts are padded to multiples of it, alone as in company: the numbers of a text, to the last bit,
# depend on how far it is padded, and not on who is beside it. An engine also gets to see, and to
# compile for, a tenth of the shapes.
PAD_TO = 16
TOKENS_A_BATCH = 512  # padding included; larger batches gain nothing and take memory
BATCHES_A_THREAD = 2  # begun ahead: one at work, and one that it need not wait for Python for
TEXTS_TOKENIZED_AT_ONCE = 4096  # bounds memory while embedding a corpus


@dataclass(frozen=True)
class EncoderDescription:
    """What `encoder.json` says: how the ONNX file was made and how to feed it."""

    source: str
    pooling: str  # "mean" or "cls", inside the graph
    prefix: str  # put before every text
    max_tokens: int  # longer texts are cut, special tokens included
    dimension: int  # floats in an embedding
    precision: str  # "fp32" or "int8"
    check: dict[str, float]  # agreement with PyTorch, see export.check

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "EncoderDescription":
        return cls(**json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))


class Encoder:
    """Turns texts into unit-length embeddings; safe to use from several threads."""

    def __init__(self, folder: Path, threads: int = 0, engine: engines.Name | None = None) -> None:
        """Load the encoder that `export` wrote into `folder`; `threads` 0 means one a core.

        Each thread runs a batch of its own, so that embeddings do not depend on how many there are.
        Without `engine` it is the fastest that is there. Raises OSError if a file is missing and
        the engine's own error if one is damaged.
        """
        self.folder = folder
        self.description = EncoderDescription.read(folder)
        self._threads = threads or os.cpu_count() or 1
        precision = self.description.precision
        self.engine = engines.start(folder / MODEL_FILE, precision, self._threads, engine)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.description.max_tokens)

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Return embeddings of shape (texts, dimension), 32-bit floats, in the order of `texts`.

        `progress` is called with the number of texts done since its last call.
        """
        embeddings = np.empty((len(texts), self.description.dimension), np.float32)
        for rows, found in self.embed(texts):
            embeddings[rows] = found()
            if progress:
                progress(len(rows))
        return embeddings

    def embed(
        self,
        texts: Sequence[str],
        all_begun: Callable[[], object] | None = None,
        eager: bool = True,
    ) -> Iterator[tuple[list[int], engines.Begun]]:
        """Yield rows of `texts`, a batch at a time, and what waits for their embeddings.

        The engine is at them and at the next ones by then, so there is time for other work before
        waiting. No more is begun before it is asked for: others may have the engine in between, and
        whoever asks for several batches before waiting for one has so many more begun. If
        this is not `eager`, threads have no second batch to go on with. `all_begun` is called when
        no more is to be begun.
        """
        ahead = self._threads * BATCHES_A_THREAD if eager else self._threads - 1
        for start in range(0, len(texts), TEXTS_TOKENIZED_AT_ONCE):
            tokens = self.tokenize(texts[start : start + TEXTS_TOKENIZED_AT_ONCE])
            begun: deque[tuple[list[int], engines.Begun]] = deque()
            for rows in batches([self._padded_length(len(ids)) for ids in tokens]):
                running = self.begin([tokens[row] for row in rows])
                begun.append(([start + row for row in rows], running))
                if len(begun) > ahead:
                    yield begun.popleft()
            if all_begun and start + TEXTS_TOKENIZED_AT_ONCE >= len(texts):
                all_begun()
            yield from begun

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, at most `max_tokens` of them, special tokens included."""
        prefix = self.description.prefix
        prepared = [prefix + plain(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prepared)]

    def begin(self, tokens: Sequence[Sequence[int]]) -> engines.Begun:
        """Begin with one batch, padded for the longest; return what waits for its embeddings."""
        return self.engine.begin(padded(tokens, self._padded_length(max(map(len, tokens)))))

    def _padded_length(self, tokens: int) -> int:
        return max(tokens, min(-(-tokens // PAD_TO) * PAD_TO, self.description.max_tokens))


def padded(tokens: Sequence[Sequence[int]], length: int) -> dict[str, np.ndarray]:
    """Return what BERT reads of a batch: ids and mask, each of shape (texts, length)."""
    shape = len(tokens), length
    input_ids, attention_mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, ids in enumerate(tokens):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows of one length each, at most `TOKENS_A_BATCH` tokens of them or one text.

    Longest first: the first batch shows at once whether memory suffices. As many texts as a power
    of two: an engine compiles for each size that it meets.
    """
    alike: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        alike.setdefault(length, []).append(row)
    for length, rows in sorted(alike.items(), reverse=True):
        most = max(1, TOKENS_A_BATCH // length)
        while rows:
            count = 1 << min(most, len(rows)).bit_length() - 1
            yield rows[:count]
            rows = rows[count:]
