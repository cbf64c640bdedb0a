"""A model's scores held against what it must do: invariance, direction, minimum functionality.

The three kinds are those of CheckList (Ribeiro et al., ACL 2020).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

import numpy as np

from train.behaviour.cases import Labeled, Pair, less_of_an_offer, must_be_known, same_meaning
from train.behaviour.outcome import Case, Check, Outcome
from train.behaviour.requirements import REAL, Requirements

EXAMPLES = 3  # shown where a mean falls short, though no case does by itself


class Scores(Protocol):
    """What gives scores; `feedsieve.scorer.Scorer` does."""

    @property
    def threshold(self) -> float: ...

    def score(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> np.ndarray: ...


def run(
    scorer: Scores,
    requirements: Requirements = REAL,
    progress: Callable[[int], object] | None = None,
) -> Outcome:
    """Score all the messages, each once and in one call, and hold the scores to `requirements`.

    `progress` is what `feedsieve.scorer.Scorer.score` takes.
    """
    same, less, known = same_meaning(), less_of_an_offer(), must_be_known()
    texts = all_texts()
    scores = dict(zip(texts, map(float, scorer.score(texts, progress)), strict=True))

    def required(name: str) -> Mapping[str, float]:
        return requirements.get(name, {})

    return Outcome(
        [
            *(_invariance(name, _moved(same[name], scores), required(name)) for name in same),
            *(_direction(name, _moved(less[name], scores), required(name)) for name in less),
            *(
                _functionality(name, known[name], scores, scorer.threshold, required(name))
                for name in known
            ),
        ],
        scorer.threshold,
        len(texts),
    )


def all_texts() -> list[str]:
    """Return every text that `run` scores, once."""
    pairs = chain(*same_meaning().values(), *less_of_an_offer().values())
    known = (message.text for message in chain(*must_be_known().values()))
    return list(dict.fromkeys([*chain(*pairs), *known]))


def _moved(pairs: Sequence[Pair], scores: Mapping[str, float]) -> list[Case]:
    return [
        Case(pair.after, scores[pair.after], pair.before, scores[pair.before]) for pair in pairs
    ]


def _invariance(name: str, cases: list[Case], required: Mapping[str, float]) -> Check:
    moves = [abs(case.fall) for case in cases]
    limit = required.get("largest move", 1)
    return _check(
        "invariance",
        name,
        required,
        {"mean move": float(np.mean(moves)), "largest move": max(moves)},
        sorted(cases, key=lambda case: -abs(case.fall)),
        sum(move > limit for move in moves),
    )


def _direction(name: str, cases: list[Case], required: Mapping[str, float]) -> Check:
    falls = [case.fall for case in cases]
    fallen = sum(fall > 0 for fall in falls)
    return _check(
        "direction",
        name,
        required,
        {"share that falls": fallen / len(falls), "mean fall": float(np.mean(falls))},
        sorted(cases, key=lambda case: case.fall),
        len(falls) - fallen,
    )


def _functionality(
    name: str,
    messages: list[Labeled],
    scores: Mapping[str, float],
    threshold: float,
    required: Mapping[str, float],
) -> Check:
    wrong = [
        Case(text, scores[text])
        for text, label in messages
        if (scores[text] >= threshold) != bool(label)
    ]
    wrong.sort(key=lambda case: -abs(case.score - threshold))
    accuracy = 1 - len(wrong) / len(messages)
    return Check("functionality", name, len(messages), required, {"accuracy": accuracy}, wrong)


def _check(
    kind: str,
    name: str,
    required: Mapping[str, float],
    reached: Mapping[str, float],
    worst_first: list[Case],
    failures: int,
) -> Check:
    """Return the check, with the cases that fail or, where only the mean does, the worst few."""
    check = Check(kind, name, len(worst_first), required, reached, worst_first[:failures])
    if check.passed or failures:
        return check
    return replace(check, failures=worst_first[:EXAMPLES])
