"""Check a model's scores for invariance, direction and minimum functionality.

These are the three kinds of test of CheckList (Ribeiro et al., ACL 2020).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from train.behaviour.outcome import Case, Check, Outcome
from train.behaviour.suite import Bounds, Example, Pair, Suite

EXAMPLES = 3  # cases to show if a mean falls short although no single case does


class Scores(Protocol):
    """The part of `feedsieve.scoring.scorer.Scorer` that is used here."""

    @property
    def threshold(self) -> float: ...

    def score(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray: ...


def run(scorer: Scores, suite: Suite, progress: Callable[[int], object] | None = None) -> Outcome:
    """Score every message once, in one call, and compare the scores with what is required.

    `progress` is called with the number of newly scored texts, as by `Scorer.score`.
    """
    texts, required = suite.texts, suite.required
    scores = dict(zip(texts, map(float, scorer.score(texts, progress)), strict=True))
    checks = [
        *(
            _invariance(name, _cases(pairs, scores), required.get(name, {}))
            for name, pairs in suite.invariance.items()
        ),
        *(
            _direction(name, _cases(pairs, scores), required.get(name, {}))
            for name, pairs in suite.direction.items()
        ),
        *(
            _functionality(name, examples, scores, scorer.threshold, required.get(name, {}))
            for name, examples in suite.functionality.items()
        ),
    ]
    return Outcome(checks, scorer.threshold, len(texts))


def _cases(pairs: Sequence[Pair], scores: Mapping[str, float]) -> list[Case]:
    return [
        Case(pair.after, scores[pair.after], pair.before, scores[pair.before]) for pair in pairs
    ]


def _invariance(name: str, cases: list[Case], required: Bounds) -> Check:
    moves = [abs(case.fall) for case in cases]
    limit = required.get("largest move", 1)
    reached = {"mean move": float(np.mean(moves)), "largest move": max(moves)}
    worst_first = sorted(cases, key=lambda case: -abs(case.fall))
    failed = sum(move > limit for move in moves)
    return _check("invariance", name, required, reached, worst_first, failed)


def _direction(name: str, cases: list[Case], required: Bounds) -> Check:
    falls = [case.fall for case in cases]
    fallen = sum(fall > 0 for fall in falls)
    reached = {"share that falls": fallen / len(falls), "mean fall": float(np.mean(falls))}
    worst_first = sorted(cases, key=lambda case: case.fall)
    return _check("direction", name, required, reached, worst_first, len(falls) - fallen)


def _functionality(
    name: str,
    examples: Sequence[Example],
    scores: Mapping[str, float],
    threshold: float,
    required: Bounds,
) -> Check:
    wrong = [
        Case(text, scores[text])
        for text, label in examples
        if (scores[text] >= threshold) != bool(label)
    ]
    wrong.sort(key=lambda case: -abs(case.score - threshold))
    accuracy = 1 - len(wrong) / len(examples)
    return Check("functionality", name, len(examples), required, {"accuracy": accuracy}, wrong)


def _check(
    kind: str,
    name: str,
    required: Bounds,
    reached: Bounds,
    worst_first: list[Case],
    failed: int,
) -> Check:
    """Return the check with its `failed` cases, or the worst few if only the mean falls short."""
    check = Check(kind, name, len(worst_first), required, reached, worst_first[:failed])
    if check.passed or failed:
        return check
    return Check(kind, name, len(worst_first), required, reached, worst_first[:EXAMPLES])
