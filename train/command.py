"""What the commands that train have in common: how they say what made them fail."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from export.check import BadExport
from export.sources import UnknownSource
from export.wheel import BadWeights
from feedsieve.backend_selection import NoBackend
from feedsieve.bulk import NoEngine
from feedsieve.files import RunningAlready
from feedsieve.message import StoreUnavailable
from feedsieve.models import NoModel
from feedsieve.settings import InvalidSettings
from train.data import InvalidData
from train.distil import FEW, NoSuchLayers, is_layers
from train.failures import in_one_line
from train.feature_store import NoFeatures
from train.registry import NoVersion
from train.tracking import TrackingUnavailable
from train.trainer import CannotKeep

FAILURES = (
    InvalidData, InvalidSettings, UnknownSource, BadWeights, BadExport, StoreUnavailable,
    CannotKeep, RunningAlready, NoModel, TrackingUnavailable, NoVersion, NoFeatures,
    NoEngine, NoSuchLayers, NoBackend,
)  # fmt: skip


def add_no_track(parser: argparse.ArgumentParser) -> None:
    """Let a command be told to leave no run in MLflow: `track` of its options."""
    parser.add_argument(
        "--no-track",
        dest="track",
        action="store_false",
        help="leave no run in MLflow, which is in .mlflow/ below the current directory unless"
        " MLFLOW_TRACKING_URI says where",
    )


def add_cluster(parser: argparse.ArgumentParser, what: str) -> None:
    """Let a command be told of a cluster: `cluster` of its options; `what` goes there."""
    parser.add_argument(
        "--cluster",
        metavar="WHERE",
        help="a Dask cluster: local:N starts N processes here, tcp://HOST:PORT is a scheduler's;"
        f" {what}",
    )


def add_distil(parser: argparse.ArgumentParser, what: str) -> None:
    """Let a command be told of a smaller encoder: `distil` of its options; `what` becomes of it."""
    parser.add_argument(
        "--distil",
        type=_layers,
        metavar="LAYERS",
        help=f"{what}: a number of layers (the wheel's encoder has 12), those of a list like"
        f" 0,4,8,11, or all; {FEW}, or all if there are no more, unless it is said",
    )


def _layers(given: str) -> str:
    if not is_layers(given):
        raise argparse.ArgumentTypeError(f"a number, numbers like 0,4,8,11, or all, not {given!r}")
    return given


def run(name: str, data: Path, work: Callable[[], int | None]) -> int:
    """Do `work` and return what it returns, 0 for None; 1 after one line on stderr if it fails."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return in_one_line(name, work, FAILURES, data)
