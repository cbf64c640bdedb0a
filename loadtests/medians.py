"""Several runs of the same measurement as one."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any


def medians(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and under `each` what it was made of.

    Failures are added up, of a figure whose name begins with `largest` the largest counts, and one
    that no run has is None.
    """
    merged: dict[str, Any] = {"each": list(records)}
    for name in records[0]:
        values = [record[name] for record in records if record[name] is not None]
        if name == "failures":
            merged[name] = dict(sum(map(Counter, values), Counter()))
        elif not values:
            merged[name] = None
        elif name.startswith("largest"):
            merged[name] = max(values)
        else:
            merged[name] = statistics.median(values)
    return merged
