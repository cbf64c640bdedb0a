"""`python -m train.learning_curve`: what training makes of few labels, beside a linear model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from feedsieve.command import run_command
from train.cli.arguments import add_encoder, positive
from train.report.doc_page import write_section

if TYPE_CHECKING:
    from train.evaluation.learning_curve import Point

MARK = "learning-curve"  # of the table in the page
METRICS = {"average_precision": "AP", "f1": "F1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    names = ", ".join(map(str, options.data))
    return run_command("train.learning_curve", lambda: _measure(options), names)


def _measure(options: argparse.Namespace) -> None:
    # Imported here: PyTorch and the others take ten seconds, and --help needs none of them.
    from export import sources
    from train.data.labelled import read_labeled
    from train.encoder.frozen import frozen_embedder
    from train.evaluation.learning_curve import learning_curve

    frames = [read_labeled(path) for path in options.data]
    source = sources.load(options.encoder)
    curves: list[tuple[str, list[Point]]] = []
    for path, frame in zip(options.data, frames, strict=True):
        with frozen_embedder(source, frame["msg"].tolist()) as embedder:
            curve = learning_curve(frame, embedder, options.labels, options.draws, options.seed)
            curves.append((path.stem, list(tqdm(curve, path.stem, unit=" models"))))
    text = table(curves)
    print(text)
    if options.out:
        write_section(options.out, MARK, text)
        print(f"see {options.out}")


def table(curves: Sequence[tuple[str, Sequence["Point"]]]) -> str:
    """Return the figures as Markdown, with a row for each corpus, by name, and number of labels."""
    ways = list(
        dict.fromkeys(way for _name, curve in curves for one in curve for way in one.figures)
    )
    columns = [(way, metric) for metric in METRICS for way in ways]
    head = ["messages", "labels", "positive", "draws"]
    rows = [head + [f"{METRICS[metric]}: {way}" for way, metric in columns]]
    rows.append(["---"] * len(rows[0]))
    for name, curve in curves:
        for size in dict.fromkeys(point.labels for point in curve):
            draws = [point for point in curve if point.labels == size]
            trained = [point for point in draws if point.figures]
            positives = [point.positives for point in draws]
            counts = [f"{min(positives)}–{max(positives)}", f"{len(trained)} of {len(draws)}"]
            means = [_mean(trained, way, metric) for way, metric in columns]
            rows.append([name, f"{size:,}", *counts, *means])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _mean(points: Sequence["Point"], way: str, metric: str) -> str:
    return f"{np.mean([point.figures[way][metric] for point in points]):.3f}" if points else "–"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.learning_curve",
        description="Train on random draws of few labels and test each model on the test part, for"
        " one or more files of labelled messages. A draw on which no model can be trained, since"
        " both labels must occur twice, is counted. Means over the draws go into a table.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="LABELED.csv",
        help="as of python -m train",
    )
    parser.add_argument(
        "--labels",
        type=positive,
        nargs="+",
        default=[40, 100, 300, 1000],
        metavar="N",
        help="numbers of labels (40 100 300 1000); those above the training part are left out",
    )
    parser.add_argument("--draws", type=positive, default=4, help="random draws (%(default)s)")
    add_encoder(parser)
    parser.add_argument("--seed", type=int, default=7, help="of draws and models (%(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.md", help="also write the table into this page"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
