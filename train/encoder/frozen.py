"""A frozen encoder for figures, without a model in the model store."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from export import pipeline as export
from export.sources import Source
from feedsieve.settings import settings
from train.encoder.embedder import Embedder


@contextmanager
def frozen_embedder(source: Source, texts: Sequence[str]) -> Iterator[Embedder]:
    """Yield the embedder of `source`, exported into a temporary folder during the block.

    8 bits are calibrated on `texts`. Raises what `export_encoder` raises.
    """
    with tempfile.TemporaryDirectory(prefix="feedsieve-encoder-") as folder:
        exported = export.export_encoder(source, Path(folder), texts, settings().threads)
        yield Embedder(exported.fastest)
