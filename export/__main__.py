"""`python -m export`: an encoder to ONNX, checked, into the model store."""

import argparse
import logging
import sys
import tempfile
from itertools import islice
from pathlib import Path

from export import pipeline, sources
from export.check import BadExport
from export.wheel import BadWeights
from feedsieve.backend_selection import NoBackend
from feedsieve.message import UnreadableFile
from feedsieve.models import NoModel
from feedsieve.readers import read_messages
from feedsieve.settings import InvalidSettings, settings

READ_AT_MOST = 20_000  # messages; the check picks a few of every length among them


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.add_reference:
            pipeline.add_reference(options.add_reference, settings().threads)
            print(f"{options.add_reference} has reference outputs now")
        else:
            print(f"saved {_export(options)}")
    except (
        UnreadableFile,
        sources.UnknownSource,
        BadWeights,
        BadExport,
        NoBackend,
        NoModel,
        InvalidSettings,
        ValueError,
        OSError,
    ) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


def _export(options: argparse.Namespace) -> str:
    """Export, check and save the encoder; return its tag."""
    texts = [message.text for message in islice(read_messages(options.messages), READ_AT_MOST)]
    source = sources.load(options.encoder)
    with tempfile.TemporaryDirectory(prefix="feedsieve-export-") as folder:
        encoders = pipeline.export_encoder(source, Path(folder), texts, settings().threads)
        for encoder in encoders.values():
            print(pipeline.describe(encoder))
        if options.precision not in encoders:
            raise BadExport(f"{encoders.int8_refused}; --precision fp32 saves the one in 32 bits")
        return pipeline.save_encoder(Path(folder) / options.precision)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a BERT encoder to ONNX, compare it with PyTorch on messages, and save"
        " it in the BentoML model store. Training does this by itself.",
    )
    parser.add_argument(
        "--encoder",
        default="wheel",
        metavar="SOURCE",
        help="wheel (default), hf:ORG/NAME or a folder",
    )
    parser.add_argument(
        "--precision", choices=("int8", "fp32"), default="int8", help="which to save (int8)"
    )
    parser.add_argument(
        "--messages",
        type=Path,
        default=Path("data/messages.db"),
        metavar="FILE",
        help="messages to check the export on: a chat dump, CSV or result.json (%(default)s)",
    )
    parser.add_argument(
        "--add-reference",
        metavar="CLASSIFIER",
        help="export nothing, but add reference outputs to this classifier and its encoder, which"
        " an earlier version made: feedsieve-classifier:latest, say",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
