"""Arguments that several commands of training share."""

import argparse
import re
from datetime import datetime, timedelta

from feedsieve.message import in_utc
from train.encoder.layer_choice import DEFAULT_LAYERS, is_layer_choice


def add_no_track(parser: argparse.ArgumentParser) -> None:
    """Add --no-track, which sets `track` to False."""
    parser.add_argument(
        "--no-track",
        dest="track",
        action="store_false",
        help="do not track the run in MLflow (.mlflow/ in the current directory, or"
        " MLFLOW_TRACKING_URI)",
    )


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add --encoder, which `export.sources.load` reads."""
    parser.add_argument(
        "--encoder", default="wheel", metavar="SOURCE", help="as of python -m train"
    )


def add_cluster(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add --cluster; `purpose` says what the workers do."""
    parser.add_argument(
        "--cluster",
        metavar="WHERE",
        help="a Dask cluster: tcp://HOST:PORT is a scheduler; local:N starts N processes here,"
        " ssh://[USER@]HOST[:PORT][,HOST][/PYTHON] a worker on each host, slurm:N and kubernetes:N"
        " N workers there;"
        f" {purpose}",
    )


def add_distil(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add --distil; `purpose` says what the layers are for."""
    parser.add_argument(
        "--distil",
        type=_layers,
        metavar="LAYERS",
        help=f"{purpose}: a number of layers (the wheel's encoder has 12), a list like 0,4,8,11, or"
        f" all (default: {DEFAULT_LAYERS}, or all if there are fewer)",
    )


def time_or_fingerprint(value: str) -> datetime | str:
    """Return a time in UTC, the default zone; a date: its end; or at least 6 hexadecimal digits.

    Raises ArgumentTypeError.
    """
    if re.fullmatch(r"[0-9a-f]{6,32}", value):
        return value
    try:
        time = in_utc(datetime.fromisoformat(value))
        is_date = re.fullmatch(r"\d{4}-\d\d-\d\d", value)
        return time + timedelta(days=1, milliseconds=-1) if is_date else time
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"a time such as 2026-11-30T08:30:00Z, or six or more digits of a fingerprint, not"
            f" {value!r}"
        ) from None


def _layers(value: str) -> str:
    if not is_layer_choice(value):
        raise argparse.ArgumentTypeError(f"a number, numbers like 0,4,8,11, or all, not {value!r}")
    return value


def positive(value: str) -> int:
    """Return a whole number, 1 or more. Raises ArgumentTypeError."""
    if not value.isascii() or not value.isdigit() or not int(value):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {value}")
    return int(value)
