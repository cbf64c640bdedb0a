"""`python -m export`: export an encoder to ONNX, check it, store it."""

import argparse
import logging
import sys
import tempfile
from itertools import islice
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.settings import settings
from feedsieve.sources.readers import read_messages

MAX_MESSAGES = 20_000  # read; the check uses a sample of every length


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command("export", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    # Imported here: PyTorch and the others take ten seconds, and --help needs none of them.
    from export import pipeline

    if options.add_reference:
        pipeline.add_reference(options.add_reference, settings().threads)
        print(f"{options.add_reference} has reference outputs now")
    else:
        print(f"saved {_export(options)}")


def _export(options: argparse.Namespace) -> str:
    """Export, check and save the encoder; return its tag."""
    from export import pipeline, sources
    from export.check import ExportError

    messages = options.messages or Path(settings().db)
    texts = [message.text for message in islice(read_messages(messages), MAX_MESSAGES)]
    source = sources.load(options.encoder)
    with tempfile.TemporaryDirectory(prefix="feedsieve-export-") as folder:
        encoders = pipeline.export_encoder(source, Path(folder), texts, settings().threads)
        for encoder in encoders.values():
            print(pipeline.describe(encoder))
        if options.precision not in encoders:
            raise ExportError(f"{encoders.int8_rejected}; use --precision fp32")
        return pipeline.save_encoder(Path(folder) / options.precision)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a BERT encoder to ONNX, compare it with PyTorch on messages, and save"
        " it in the BentoML model store. Training does this too.",
    )
    parser.add_argument(
        "--encoder",
        default="wheel",
        metavar="SOURCE",
        help="wheel (default), hf:ORG/NAME or a folder",
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default="int8",
        help="precision to save (%(default)s)",
    )
    parser.add_argument(
        "--messages",
        type=Path,
        metavar="FILE",
        help="messages to check the export on: a chat dump, CSV or result.json (FEEDSIEVE_DB)",
    )
    parser.add_argument(
        "--add-reference",
        metavar="CLASSIFIER",
        help="only add reference outputs to this classifier and its encoder, made by an earlier"
        " version; for example feedsieve-classifier:latest",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
