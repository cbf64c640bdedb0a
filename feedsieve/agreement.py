"""Agreement of people who labelled the same messages."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """Agreement of two people."""

    first: str
    second: str
    common: int  # messages that both labelled
    same: float  # share with the same label, 0 to 1
    kappa: float  # Cohen's kappa, -1 to 1; NaN if there is only one label

    def __str__(self) -> str:
        kappa = "undefined" if math.isnan(self.kappa) else f"{self.kappa:.2f}"
        return (
            f"{self.first} and {self.second} agree on {self.same:.0%} of {self.common:,} messages,"
            f" Cohen's kappa {kappa}"
        )


def agreements(
    given: Mapping[str, Mapping[Hashable, bool]], fewest_common: int = 1
) -> list[Agreement]:
    """Return the agreement of each pair of people with enough messages in common.

    `given` has the labels by person and message. Cohen, "A coefficient of agreement for nominal
    scales", 1960.
    """
    pairs = []
    for first, second in combinations(sorted(given), 2):
        common = given[first].keys() & given[second].keys()
        if len(common) >= fewest_common:
            pairs.append(
                _agreement(first, second, [(given[first][m], given[second][m]) for m in common])
            )
    return pairs


def _agreement(first: str, second: str, labels: list[tuple[bool, bool]]) -> Agreement:
    count = len(labels)
    same = sum(one == other for one, other in labels) / count
    left, right = (sum(side) / count for side in zip(*labels, strict=True))
    by_chance = left * right + (1 - left) * (1 - right)
    kappa = math.nan if by_chance == 1 else (same - by_chance) / (1 - by_chance)
    return Agreement(first, second, count, same, kappa)
