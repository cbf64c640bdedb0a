"""Inputs of a benchmark run, and the median of its repetitions."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from loadtests.harness.baselines import Baselines
from loadtests.harness.processes import in_new_process

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Texts, models, durations, and a temporary folder."""

    texts: Sequence[str]  # different ones
    chat: Sequence[str]  # a chat in order, with its repeats
    model: str  # tag of the served classifier
    served: str  # its encoder in words, for the page
    models: Sequence[str]  # tags of classifiers whose encoders are compared
    encoder: str  # source of the baselines' encoder
    max_tokens: int  # of the served encoder
    quick: bool
    folder: Path
    _runs: count = field(default_factory=lambda: count(1), repr=False)

    @cached_property
    def baselines(self) -> Baselines:
        """The exported baselines, in a folder of their own."""
        folder = self.folder / "encoders"  # the export needs 3 GB
        return in_new_process(Baselines.write, self.encoder, folder, self.texts, self.max_tokens)

    def few_or_many(self, few: T, many: T) -> T:
        """Return `few` in a quick run and `many` otherwise."""
        return few if self.quick else many

    def next_run(self) -> int:
        """Return a new run number, see `messages.different`."""
        return next(self._runs)


def medians(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure (the sum of failures, the maximum of `largest…`).

    The records themselves are under `each`. A figure without a value in any run is None.
    """
    merged: dict[str, Any] = {"each": list(records)}
    for name in records[0]:
        values = [record[name] for record in records if record[name] is not None]
        if name == "failures":
            merged[name] = dict(sum(map(Counter, values), Counter()))
        else:
            merge = max if name.startswith("largest") else statistics.median
            merged[name] = merge(values) if values else None
    return merged
