"""Learning curves: figures of models that are trained on random draws of few labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from train.data.near_duplicates import near_duplicate_groups
from train.data.split import split
from train.data.validation import checked
from train.encoder.embedder import Embedder
from train.evaluation.candidates import FROZEN, SVC, Part, frozen, linear
from train.evaluation.judges import judges
from train.evaluation.metrics import evaluate

WAYS = (SVC, FROZEN)


@dataclass(frozen=True)
class Point:
    """The figures of one draw; empty if no model can be trained on it."""

    labels: int
    positives: int
    figures: dict[str, dict[str, float]]  # metrics on the test part, by way


def learning_curve(
    frame: pd.DataFrame, embedder: Embedder, sizes: Sequence[int], draws: int, seed: int
) -> Iterator[Point]:
    """Yield a point for each draw and each of `sizes`, from few labels to many.

    A draw is a random order of the training part, of which the first messages are labelled. The
    test part judges, by adjudicated labels if `frame`, that of `read_labeled`, has them.
    Sizes above that of the training part are left out.
    Raises ValueError for too few messages, to split or for any of `sizes`.
    """
    parts = split(frame, seed)
    if min(sizes) > len(parts.train):
        raise ValueError(
            f"the training part has {len(parts.train):,} messages, fewer than {min(sizes):,} labels"
        )
    texts, labels = parts.train["msg"].to_numpy(), parts.train["label"].to_numpy()
    is_checked = checked(parts.train)
    groups = near_duplicate_groups(texts.tolist(), progress=False)
    held_out = parts.test["msg"].tolist()
    truth = list(judges(parts.test).values())[-1]
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(texts))
        for size in (size for size in sorted(sizes) if size <= len(texts)):
            rows = np.sort(order[:size])
            part = Part(
                texts[rows].tolist(), labels[rows], groups[rows], held_out, is_checked[rows]
            )
            yield Point(size, int(labels[rows].sum()), _figures(part, truth, embedder, seed))


def _figures(
    part: Part, truth: np.ndarray, embedder: Embedder, seed: int
) -> dict[str, dict[str, float]]:
    if not _is_enough(part):
        return {}
    predictions = linear(part, seed, [SVC]) | frozen(part, embedder, seed)
    return {
        way: evaluate(truth, predictions[way].scores, predictions[way].threshold) for way in WAYS
    }


def _is_enough(part: Part) -> bool:
    """Return whether both labels occur in two groups, as folds need."""
    return all(len(np.unique(part.groups[part.labels == label])) > 1 for label in (0, 1))
