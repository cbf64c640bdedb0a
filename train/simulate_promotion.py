"""`python -m train.simulate_promotion`: how often the gate of train.promote is right.

Models of different seeds are fitted with a frozen encoder, and labels are drawn from their
out-of-fold scores as often as wanted: with replacement, by group of near-duplicates.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import logit
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from feedsieve.command import run_command
from train.classifier.calibration import calibrate, expected_threshold
from train.cli.arguments import add_encoder
from train.evaluation.non_inferiority import MARGIN, Outcome, compare, worst

COUNTS = (500, 1000, 2000, 3000, 4000)  # labels


@dataclass(frozen=True)
class Model:
    """Out-of-fold scores of all messages, (messages,), and the threshold chosen on them."""

    scores: np.ndarray
    threshold: float


def worsened(model: Model, labels: np.ndarray, points: float, seed: int) -> Model:
    """Return a model whose average precision is `points` lower: noise is added to the logits."""
    noise = np.random.default_rng(seed).normal(size=len(labels))
    logits = logit(np.clip(model.scores, 1e-6, 1 - 1e-6))
    aim = average_precision_score(labels, logits) - points / 100
    scale = brentq(lambda x: average_precision_score(labels, logits + x * noise) - aim, 0, 20)
    scores = calibrate(logits + scale * noise, labels)
    return Model(scores, expected_threshold(scores))


def outcomes(
    models: Sequence[Model],
    labels: np.ndarray,
    groups: np.ndarray,
    count: int,
    promotions: int,
    points: float,
    seed: int,
) -> Iterator[Outcome]:
    """Yield the outcomes of promotions on about `count` labels, a pair of models in each.

    The challenger is of another seed than the champion, and `points` worse.
    """
    random = np.random.default_rng(seed)
    _, members = np.unique(groups, return_inverse=True)
    rows_of = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    for number in range(promotions):
        ours, theirs = (models[row] for row in random.choice(len(models), 2, replace=False))
        if points:
            ours = worsened(ours, labels, points, seed + number)
        drawn = random.integers(len(rows_of), size=round(count * len(rows_of) / len(labels)))
        rows = np.concatenate([rows_of[group] for group in drawn])
        copies = np.repeat(np.arange(len(drawn)), [len(rows_of[group]) for group in drawn])
        thresholds = ours.threshold, theirs.threshold
        found = compare(
            labels[rows], copies, ours.scores[rows], theirs.scores[rows], thresholds, number
        )
        yield worst([one.outcome(MARGIN) for one in found.values()])


def table(
    models: Sequence[Model],
    labels: np.ndarray,
    groups: np.ndarray,
    options: argparse.Namespace,
) -> str:
    """Return the shares of outcomes by number of labels, as Markdown."""
    lines = [
        f"| labels | equal models | {options.points:g} points worse |",
        "|---|---|---|",
    ]
    with tqdm(total=2 * len(options.labels) * options.promotions, unit="promotion") as bar:
        for count in options.labels:
            cells = []
            for points in (0.0, options.points):
                found: Counter[Outcome] = Counter()
                for one in outcomes(
                    models, labels, groups, count, options.promotions, points, options.seed
                ):
                    found[one] += 1
                    bar.update()
                cells.append(
                    f"{found[Outcome.PASSED]} promoted, {found[Outcome.UNDECIDED]} undecided,"
                    f" {found[Outcome.REJECTED]} rejected"
                )
            lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fit(options: argparse.Namespace) -> tuple[list[Model], np.ndarray, np.ndarray]:
    # Imported here: PyTorch and the others take ten seconds, and --help needs none of them.
    from export import sources
    from train.classifier import stacking
    from train.data.dataset import Dataset
    from train.encoder.frozen import frozen_embedder

    data = Dataset.read(options.data)
    with frozen_embedder(sources.load(options.encoder), data.texts) as embedder:
        embeddings = embedder.embed(data.texts, "embed")
    models = []
    for seed in range(options.seed, options.seed + options.models):
        _features, fitted = stacking.fit(
            data.texts, data.labels, data.groups, embeddings, None, seed, checked=data.checked
        )
        models.append(Model(fitted.held_out, fitted.threshold))
    return models, data.labels, data.groups


def main() -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args()
    return run_command(
        "simulate_promotion", lambda: print(table(*_fit(options), options)), options.data
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.simulate_promotion",
        description="Fit models of different seeds, and count how often the gate of train.promote"
        " promotes an equal model and one that is worse, by number of labels. Labels are drawn from"
        " the out-of-fold scores, with replacement.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="as of python -m train"
    )
    add_encoder(parser)
    for name, default, about in (
        ("--models", 5, "models to fit, each of another seed"),
        ("--promotions", 20, "promotions for each number of labels"),
        ("--seed", 7, "the first seed"),
    ):
        parser.add_argument(name, type=int, default=default, help=f"{about} (%(default)s)")
    parser.add_argument(
        "--points", type=float, default=3.0, help="loss of average precision (%(default)g)"
    )
    parser.add_argument(
        "--labels", type=int, nargs="+", default=COUNTS, metavar="N", help="numbers of labels"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
