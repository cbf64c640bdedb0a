"""Compare a challenger with the champion: quality, behaviour, latency and size."""

import argparse
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score
from tqdm import tqdm

from feedsieve.scoring import model_store
from feedsieve.scoring.scorer import Scorer
from feedsieve.text import fingerprint
from train.behaviour import checks as behaviour
from train.behaviour.suite import Suite
from train.data.near_duplicates import near_duplicate_groups
from train.tracking import mlflow_run
from train.tracking.registry import Version

HELD_OUT_FILE = "held_out.csv"  # written by train.pipeline, which takes seconds to import
SAMPLES = 1000  # of the bootstrap
FEWEST = 100  # messages with out-of-fold scores of both models
TIMED = 100  # messages


@dataclass(frozen=True)
class Finding:
    """The result of one comparison, and whether the challenger passes it."""

    name: str
    result: str
    passed: bool

    def __str__(self) -> str:
        return f"{'ok      ' if self.passed else 'REJECTED'}  {self.name}: {self.result}"


@dataclass(frozen=True)
class Difference:
    """Challenger's figure minus champion's, -1 to 1, with its 95 % confidence interval."""

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
        """Load its pair, fetched if need be. Raises ModelNotFound and TrackingUnavailable."""
        version.fetch()
        return cls(version, model_store.load_scorer(version.pair.classifier_tag, threads=1))

    @property
    def megabytes(self) -> float:
        """Size of both models on disk."""
        pair = self.version.pair
        folders = [model_store.folder(tag) for tag in (pair.classifier_tag, pair.encoder_tag)]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / 1e6

    def out_of_fold_scores(self) -> pd.Series:
        """Return the scores of the training messages, by fingerprint.

        Each is by a model of the training's five folds that did not see the message.
        Raises TrackingUnavailable.
        """
        client = mlflow_run.connect()
        with (
            tempfile.TemporaryDirectory(prefix="feedsieve-promote-") as folder,
            mlflow_run.available(client.tracking_uri),
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
    """Return by how much `ours` are better than `theirs` in average precision and F1.

    The interval comes from a paired bootstrap over `groups` of near-duplicates (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993). All arrays are (messages,).
    """
    random = np.random.default_rng(seed)
    _, members = np.unique(groups, return_inverse=True)
    decisions = ours >= thresholds[0], theirs >= thresholds[1]

    def differences(weights: np.ndarray | None) -> tuple[float, float]:
        precision = [
            average_precision_score(labels, scores, sample_weight=weights)
            for scores in (ours, theirs)
        ]
        f1 = [f1_score(labels, decided, sample_weight=weights) for decided in decisions]
        return precision[0] - precision[1], f1[0] - f1[1]

    count = members.max() + 1
    samples = [
        differences(np.bincount(random.integers(count, size=count), minlength=count)[members])
        for _sample in tqdm(range(SAMPLES), "bootstrap", unit="sample")
    ]
    low, high = np.percentile(samples, (2.5, 97.5), axis=0)
    means = differences(None)
    return {
        name: Difference(means[column], low[column], high[column])
        for column, name in enumerate(("average precision", "F1"))
    }


@dataclass(frozen=True)
class Examination:
    """A challenger, the champion if there is one, labelled messages, and the options of promote."""

    challenger: Candidate
    champion: Candidate | None
    frame: pd.DataFrame
    options: argparse.Namespace

    def findings(self) -> list[Finding]:
        """Run all comparisons. Raises TrackingUnavailable."""
        quality = self._quality(self.champion) if self.champion else []
        suite = self.options.behave
        tested = [self._behaviour(suite)] if suite else []
        return [*quality, *tested, self._latency(), self._size()]

    def _quality(self, champion: Candidate) -> list[Finding]:
        columns = {
            "ours": self.challenger.out_of_fold_scores(),
            "theirs": champion.out_of_fold_scores(),
        }
        scores = pd.DataFrame(columns).dropna()
        labeled = self.frame.assign(fingerprint=self.frame["msg"].map(fingerprint))
        common = labeled.drop_duplicates("fingerprint").merge(
            scores, left_on="fingerprint", right_index=True
        )
        labels = common["label"].to_numpy()
        if len(common) < FEWEST or len(np.unique(labels)) < 2:
            result = (
                f"only {len(common)} messages of {self.options.data} have out-of-fold scores of"
                f" both models; {FEWEST} with both labels are needed"
            )
            return [Finding("quality", result, passed=False)]
        differences = compare(
            labels,
            near_duplicate_groups(common["msg"].tolist(), progress=False),
            common["ours"].to_numpy(),
            common["theirs"].to_numpy(),
            (self.challenger.scorer.threshold, champion.scorer.threshold),
            self.options.seed,
        )
        margin = self.options.margin
        return [
            Finding(
                name,
                f"{difference} on {len(common):,} messages held out by both; may not be"
                f" {margin:g} points lower, nor significantly lower",
                passed=difference.mean > -margin / 100 and difference.high >= 0,
            )
            for name, difference in differences.items()
        ]

    def _behaviour(self, suite: Suite) -> Finding:
        failed, count = self._failed_checks(self.challenger, suite)
        result = f"{count - len(failed)} of {count} checks pass"
        if self.champion is None:
            return Finding("behaviour", f"{result}; no champion to compare with", passed=True)
        lost = sorted(failed - self._failed_checks(self.champion, suite)[0])
        if lost:
            result += f"; the champion passes, but the challenger fails: {', '.join(lost)}"
        return Finding("behaviour", result, passed=not lost)

    def _failed_checks(self, candidate: Candidate, suite: Suite) -> tuple[set[str], int]:
        """Return the names of failed checks, and the number of all checks."""
        with tqdm(total=len(suite.texts), desc="behave", unit="message") as bar:
            outcome = behaviour.run(candidate.scorer, suite, bar.update)
        return {check.name for check in outcome.failed}, len(outcome.checks)

    def _latency(self) -> Finding:
        """Compare median latencies of single messages on one thread, measured in turn."""
        candidates = [self.challenger, *([self.champion] if self.champion else [])]
        times: list[list[float]] = [[] for _candidate in candidates]
        for text in tqdm(self.frame["msg"].tolist()[:TIMED], "latency", unit="message"):
            for candidate, taken in zip(candidates, times, strict=True):
                started = time.perf_counter()
                scorer = candidate.scorer  # without its cascade, so that every text is encoded
                scorer.classifier.score([text], scorer.encoder.encode([text]))
                taken.append(time.perf_counter() - started)
        ours, *theirs = (float(np.median(taken)) * 1000 for taken in times)
        slowest, slower = self.options.slowest, self.options.slower
        result, passed = f"{ours:.1f} ms a message (at most {slowest:g})", ours <= slowest
        if theirs:
            ratio = ours / theirs[0]
            result += f", {ratio:.2f} of the champion's (at most {slower:g})"
            passed = passed and ratio <= slower
        return Finding("latency", result, passed)

    def _size(self) -> Finding:
        size, largest = self.challenger.megabytes, self.options.largest
        return Finding("size", f"{size:.0f} MB (at most {largest:g})", size <= largest)
