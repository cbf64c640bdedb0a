"""Compare a challenger with the champion: quality, behaviour, latency and size."""

import argparse
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from feedsieve.scoring import model_store
from feedsieve.scoring.scorer import Scorer
from feedsieve.text import fingerprint
from train.behaviour import checks as behaviour
from train.behaviour.suite import Suite
from train.data.near_duplicates import near_duplicate_groups
from train.evaluation import baseline
from train.evaluation.non_inferiority import POWER, Difference, Outcome, compare
from train.report.file_names import HELD_OUT_FILE
from train.tracking import mlflow_run
from train.tracking.registry import Version

FEWEST = 100  # messages with out-of-fold scores of both models
TIMED = 100  # messages


@dataclass(frozen=True)
class Finding:
    """The result of one comparison."""

    name: str
    result: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.outcome.value:9}  {self.name}: {self.result}"


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

    def out_of_fold_scores(self) -> pd.DataFrame:
        """Return score and fold of the training messages, by fingerprint.

        Each score is by a model of the training's five folds that did not see the message. `fold`
        is -1 if an earlier version of feedsieve trained. Raises TrackingUnavailable.
        """
        client = mlflow_run.connect()
        with (
            tempfile.TemporaryDirectory(prefix="feedsieve-promote-") as folder,
            mlflow_run.available(client.tracking_uri),
        ):
            file = client.download_artifacts(self.version.run_id, HELD_OUT_FILE, folder)
            table = pd.read_csv(file, dtype={"msg_id": str, "fingerprint": str})
        table = table.drop_duplicates("fingerprint").set_index("fingerprint")
        return table.reindex(columns=["score", "fold"]).fillna({"fold": -1})


@dataclass(frozen=True)
class Examination:
    """A challenger, the champion if there is one, labelled messages, and the options of promote."""

    challenger: Candidate
    champion: Candidate | None
    frame: pd.DataFrame
    options: argparse.Namespace

    def findings(self) -> list[Finding]:
        """Run all comparisons. Raises TrackingUnavailable."""
        quality = self._quality(self.champion) if self.champion else self._floor()
        suite = self.options.behave
        tested = [self._behaviour(suite)] if suite else []
        return [*quality, *tested, self._latency(), self._size()]

    def _quality(self, champion: Candidate) -> list[Finding]:
        """Compare out-of-fold scores with the champion's."""
        theirs = champion.out_of_fold_scores().add_prefix("their_")
        common = self._held_out().join(theirs, on="fingerprint", how="inner")
        if short := self._too_few(common, "both models"):
            return short
        differences = self._compare(common, "their_score", champion.scorer.threshold)
        same = _same_folds(common["fold"], common["their_fold"])
        return [_finding(*item, self.options.margin, same) for item in differences.items()]

    def _floor(self) -> list[Finding]:
        """Compare out-of-fold scores with LinearSVC's on the same folds."""
        common = self._held_out()
        if short := self._too_few(common, "the challenger"):
            return short
        name = "better than LinearSVC"
        if (common["fold"] < 0).any():
            result = "an earlier version trained it and recorded no folds; train it again"
            return [Finding(name, result, Outcome.REJECTED)]
        texts, labels = common["msg"].tolist(), common["label"].to_numpy()
        folds = common["fold"].to_numpy()
        common["svc"] = baseline.out_of_fold(texts, labels, folds, self.options.seed)
        return [
            Finding(
                f"{figure} above LinearSVC's",
                f"{difference.mean:+.2f} points on {len(common):,} messages held out by both",
                Outcome.PASSED if difference.mean > 0 else Outcome.REJECTED,
            )
            for figure, difference in self._compare(common, "svc", 0.0).items()
        ]

    def _held_out(self) -> pd.DataFrame:
        """Return the labelled messages that the challenger has out-of-fold scores of."""
        labeled = self.frame.assign(fingerprint=self.frame["msg"].map(fingerprint))
        return labeled.drop_duplicates("fingerprint").join(
            self.challenger.out_of_fold_scores(), on="fingerprint", how="inner"
        )

    def _too_few(self, common: pd.DataFrame, whose: str) -> list[Finding]:
        if len(common) >= FEWEST and common["label"].nunique() == 2:
            return []
        result = (
            f"only {len(common)} messages of {self.options.data} have out-of-fold scores of"
            f" {whose}; {FEWEST} with both labels are needed"
        )
        return [Finding("quality", result, Outcome.UNDECIDED)]

    def _compare(
        self, common: pd.DataFrame, theirs: str, threshold: float
    ) -> dict[str, Difference]:
        return compare(
            common["label"].to_numpy(),
            near_duplicate_groups(common["msg"].tolist(), progress=False),
            common["score"].to_numpy(),
            common[theirs].to_numpy(),
            (self.challenger.scorer.threshold, threshold),
            self.options.seed,
        )

    def _behaviour(self, suite: Suite) -> Finding:
        failed, count = self._failed_checks(self.challenger, suite)
        result = f"{count - len(failed)} of {count} checks pass"
        if self.champion is None:
            return Finding("behaviour", f"{result}; no champion to compare with", Outcome.PASSED)
        lost = sorted(failed - self._failed_checks(self.champion, suite)[0])
        if lost:
            result += f"; the champion passes, but the challenger fails: {', '.join(lost)}"
        return _limit("behaviour", result, not lost)

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
        return _limit("latency", result, passed)

    def _size(self) -> Finding:
        size, largest = self.challenger.megabytes, self.options.largest
        return _limit("size", f"{size:.0f} MB (at most {largest:g})", size <= largest)


def _limit(name: str, result: str, passed: bool) -> Finding:
    return Finding(name, result, Outcome.PASSED if passed else Outcome.REJECTED)


def _same_folds(ours: pd.Series, theirs: pd.Series) -> bool:
    """Return whether two models left the same messages out together; -1 is an unknown fold."""
    pairs = pd.DataFrame({"ours": ours, "theirs": theirs}).drop_duplicates()
    return bool(
        (pairs >= 0).all(axis=None) and pairs["ours"].is_unique and pairs["theirs"].is_unique
    )


def _finding(name: str, difference: Difference, margin: float, same_folds: bool) -> Finding:
    """Return the outcome of one figure, and how many labels would decide if these do not."""
    if not same_folds:
        difference = difference.on_other_folds()
    result = (
        f"{difference} on {difference.labels:,} messages held out by both, in"
        f" {'the same' if same_folds else 'other'} folds; must lose less than {margin:g}"
    )
    outcome = difference.outcome(margin)
    if outcome is Outcome.UNDECIDED:
        needed = difference.labels_needed(margin)
        result += f"; an equal model passes with {POWER:.0%} probability on about {needed:,}"
    return Finding(name, result, outcome)
