"""The interface of costly steps of training, and their implementation in this process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from feedsieve.bulk.score_file import Progress
from feedsieve.scoring.encoder import Encoder


class Compute:
    """Runs costly steps one after the other in this process; subclasses run them elsewhere."""

    @property
    def processes(self) -> int:
        """The number of parts that run in parallel."""
        return 1

    def encoder(self, exported: Encoder, folder: Path) -> Encoder:
        """Return an encoder that runs here; `exported` was loaded from `folder`.

        The folder may be removed afterwards.
        """
        return exported

    def map(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        shared: Sequence[Any] = (),
        progress: Progress = lambda _done: None,
    ) -> list[Any]:
        """Return `function(item, *shared)` for each item, in order.

        `function` must be importable by other processes. `progress` is called with 1 per item.
        Raises what `function` raises, and ClusterUnavailable.
        """
        results = []
        for item in items:
            results.append(function(item, *shared))
            progress(1)
        return results

    def boost(
        self,
        parameters: Mapping[str, Any],
        columns: np.ndarray,
        labels: np.ndarray,
        start: np.ndarray | None,
        rounds: int,
    ) -> lightgbm.Booster:
        """Return a booster of `rounds` trees, fitted on `columns`, (rows, columns).

        `labels`, 0 or 1, and `start`, the logits that boosting starts from, are (rows,).
        Raises ClusterUnavailable.
        """
        rows = lightgbm.Dataset(columns, labels, init_score=start)
        return lightgbm.train(dict(parameters), rows, rounds)


LOCAL = Compute()
