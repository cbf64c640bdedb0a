"""`python -m export`: an encoder to ONNX, checked, into the model store."""

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path

from export import pipeline, sources
from export.check import BadExport
from export.wheel import BadWeights
from feedsieve.message import UnreadableFile
from feedsieve.readers import read_messages
from feedsieve.settings import settings

READ_AT_MOST = 20_000  # messages; the check picks a few of every length among them


def main() -> int:
    arguments = _parser().parse_args()
    try:
        texts = [
            message.text for message in islice(read_messages(arguments.messages), READ_AT_MOST)
        ]
        source = sources.load(arguments.encoder)
        with tempfile.TemporaryDirectory(prefix="feedsieve-export-") as folder:
            encoders = pipeline.export_encoder(source, Path(folder), texts, settings().threads)
            for encoder in encoders.values():
                print(pipeline.describe(encoder))
            tag = pipeline.save_encoder(Path(folder) / arguments.precision)
    except (
        UnreadableFile,
        sources.UnknownSource,
        BadWeights,
        BadExport,
        ValueError,
        OSError,
    ) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"saved {tag}")
    return 0


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
    return parser


if __name__ == "__main__":
    sys.exit(main())
