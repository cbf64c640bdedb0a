"""Where training computes: in this process, or on the cluster that somebody asks for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from feedsieve.bulk import NoEngine, Progress
from feedsieve.encoder import Encoder


class Compute:
    """What runs the costly steps of training: this process, one thing after the other.

    A subclass runs them elsewhere, and its methods keep to what is said here.
    """

    @property
    def processes(self) -> int:
        """How many parts it works on at once."""
        return 1

    def encoder(self, exported: Encoder, folder: Path) -> Encoder:
        """Return an encoder that encodes wherever this computes; `exported` is that in `folder`.

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
        """Return `function(item, *shared)` of each item, in their order.

        `progress` is told of each that is done. `function` is one of a module, since other
        processes look it up there. Raises what `function` does, and NoEngine.
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
        """Return a booster of `rounds` trees on `columns`, (rows, columns).

        `labels`, 0 or 1, are (rows,), and so are the logits that boosting may `start` from.
        Raises NoEngine.
        """
        rows = lightgbm.Dataset(columns, labels, init_score=start)
        return lightgbm.train(dict(parameters), rows, rounds)


HERE = Compute()


@contextmanager
def computing(where: str | None) -> Iterator[Compute]:
    """Yield this process, or the cluster at `where`. Raises NoEngine."""
    if where is None:
        yield HERE
        return
    try:
        from train.cluster_training import computing_on  # an extra
    except ImportError as error:
        raise NoEngine(
            f"--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from error
    with computing_on(where) as compute:
        yield compute
