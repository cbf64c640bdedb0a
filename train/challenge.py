"""What speaks for and against a challenger: quality, behaviour, latency and size."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score
from tqdm import tqdm

from feedsieve import models
from feedsieve.scorer import Scorer
from feedsieve.text import fingerprint
from train import tracking
from train.behaviour import checks as behaviour
from train.behaviour.outcome import Outcome
from train.behaviour.requirements import REQUIREMENTS
from train.duplicates import near_duplicate_groups
from train.registry import Version

HELD_OUT_FILE = "held_out.csv"  # that train.pipeline writes, whose import takes seconds
SAMPLES = 1000  # of the bootstrap
FEWEST = 100  # messages that both must have been judged on
TIMED = 100  # messages


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, how it is, and whether that will do."""

    name: str
    said: str
    passed: bool

    def __str__(self) -> str:
        return f"{'ok     ' if self.passed else 'REFUSED'}  {self.name}: {self.said}"


@dataclass(frozen=True)
class Difference:
    """How much higher a figure is for the challenger, with its 95 % interval; 1 is all of it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        low, mean, high = (100 * value for value in (self.low, self.mean, self.high))
        return f"{mean:+.2f} points ({low:+.2f} to {high:+.2f})"


@dataclass(frozen=True)
class Candidate:
    """A version with its models."""

    version: Version
    scorer: Scorer

    @classmethod
    def load(cls, version: Version) -> "Candidate":
        """Raises NoModel if the pair is not in this machine's model store."""
        return cls(version, models.load_scorer(version.pair.classifier_tag, threads=1))

    @property
    def megabytes(self) -> float:
        """What both models take on disk."""
        pair = self.version.pair
        folders = [models.folder(tag) for tag in (pair.classifier_tag, pair.encoder_tag)]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / 1e6

    def held_out(self) -> pd.Series:
        """Return the scores, by fingerprint, of messages whose labels had not been seen.

        They are of the five grouped folds of its training. Raises TrackingUnavailable.
        """
        client = tracking.connect()
        with (
            tempfile.TemporaryDirectory(prefix="feedsieve-promote-") as folder,
            tracking.available(client.tracking_uri),
        ):
            file = client.download_artifacts(self.version.run_id, HELD_OUT_FILE, folder)
            table = pd.read_csv(file, dtype={"msg_id": str, "fingerprint": str})
        return table.drop_duplicates("fingerprint").set_index("fingerprint")["score"]


def compare(
    labels: np.ndarray,
    groups: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    thresholds: tuple[float, float],
    seed: int,
) -> dict[str, Difference]:
    """Return how much better `ours` rank and decide than `theirs`, on the same messages.

    The interval is of a bootstrap that draws whole `groups` of near-duplicates, for both at once
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). All arrays are (messages,).
    """
    random = np.random.default_rng(seed)
    _, members = np.unique(groups, return_inverse=True)
    decisions = [
        scores >= threshold for scores, threshold in zip((ours, theirs), thresholds, strict=True)
    ]

    def differences(weights: np.ndarray | None) -> tuple[float, float]:
        precision = [
            average_precision_score(labels, scores, sample_weight=weights)
            for scores in (ours, theirs)
        ]
        f1 = [f1_score(labels, decided, sample_weight=weights) for decided in decisions]
        return precision[0] - precision[1], f1[0] - f1[1]

    count = members.max() + 1
    drawn = [
        differences(np.bincount(random.integers(count, size=count), minlength=count)[members])
        for _sample in tqdm(range(SAMPLES), "bootstrap", unit="sample")
    ]
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    means = differences(None)
    return {
        name: Difference(means[column], low[column], high[column])
        for column, name in enumerate(("average precision", "F1"))
    }


def examine(
    challenger: Candidate,
    champion: Candidate | None,
    frame: pd.DataFrame,
    options: argparse.Namespace,
) -> list[Finding]:
    """Return what speaks for and against the challenger. Raises TrackingUnavailable."""
    return [
        *(_quality(challenger, champion, frame, options) if champion else ()),
        _behaviour(challenger, champion, options.behave),
        _latency(challenger, champion, frame["msg"].tolist()[:TIMED], options),
        _size(challenger, options.largest),
    ]


def _quality(
    challenger: Candidate, champion: Candidate, frame: pd.DataFrame, options: argparse.Namespace
) -> list[Finding]:
    scores = pd.DataFrame({"ours": challenger.held_out(), "theirs": champion.held_out()}).dropna()
    labeled = frame.assign(fingerprint=frame["msg"].map(fingerprint))
    judged = labeled.drop_duplicates("fingerprint").merge(
        scores, left_on="fingerprint", right_index=True
    )
    labels = judged["label"].to_numpy()
    if len(judged) < FEWEST or len(np.unique(labels)) < 2:
        said = f"only {len(judged)} messages of {options.data} were judged by both; {FEWEST} needed"
        return [Finding("quality", said, passed=False)]
    found = compare(
        labels,
        near_duplicate_groups(judged["msg"].tolist(), progress=False),
        judged["ours"].to_numpy(),
        judged["theirs"].to_numpy(),
        (challenger.scorer.threshold, champion.scorer.threshold),
        options.seed,
    )
    worse = f"may not lose {options.margin:g} points, nor anything for certain"
    return [
        Finding(
            name,
            f"{difference} on {len(judged):,} messages held out by both; {worse}",
            passed=difference.mean > -options.margin / 100 and difference.high >= 0,
        )
        for name, difference in found.items()
    ]


def _behaviour(challenger: Candidate, champion: Candidate | None, requirements: str) -> Finding:
    def outcome(candidate: Candidate) -> Outcome:
        with tqdm(total=len(behaviour.all_texts()), desc="behave", unit="message") as bar:
            return behaviour.run(candidate.scorer, REQUIREMENTS[requirements], bar.update)

    ours = outcome(challenger)
    failed = {check.name for check in ours.failed}
    said = f"{len(ours.checks) - len(failed)} of {len(ours.checks)} checks pass"
    if champion is None:
        return Finding("behaviour", f"{said}; there is no champion to do better", passed=True)
    lost = sorted(failed - {check.name for check in outcome(champion).failed})
    names = f"; what the champion passes fails: {', '.join(lost)}" if lost else ""
    return Finding("behaviour", said + names, passed=not lost)


def _latency(
    challenger: Candidate,
    champion: Candidate | None,
    texts: Sequence[str],
    options: argparse.Namespace,
) -> Finding:
    """Compare medians of one message at a time on one thread, turn and turn about."""
    candidates = [challenger, *([champion] if champion else [])]
    taken: list[list[float]] = [[] for _candidate in candidates]
    for text in tqdm(texts, "latency", unit="message"):
        for candidate, times in zip(candidates, taken, strict=True):
            started = time.perf_counter()
            scorer = candidate.scorer  # all of it, also where words alone would answer
            scorer.classifier.score([text], scorer.encoder.encode([text]))
            times.append(time.perf_counter() - started)
    ours, *theirs = (float(np.median(times)) * 1000 for times in taken)
    said, passed = f"{ours:.1f} ms a message (at most {options.slowest:g})", ours <= options.slowest
    if theirs:
        ratio = ours / theirs[0]
        said += f", {ratio:.2f} of the champion's (at most {options.slower:g})"
        passed = passed and ratio <= options.slower
    return Finding("latency", said, passed)


def _size(challenger: Candidate, largest: float) -> Finding:
    size = challenger.megabytes
    return Finding("size", f"{size:.0f} MB (at most {largest:g})", size <= largest)
