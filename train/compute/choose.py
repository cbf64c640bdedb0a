"""The choice between this process and a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from feedsieve.bulk.score_file import ClusterUnavailable
from train.compute.base import LOCAL, Compute


@contextmanager
def computing(where: str | None) -> Iterator[Compute]:
    """Yield the cluster at `where`, or this process for None. Raises ClusterUnavailable."""
    if where is None:
        yield LOCAL
        return
    try:
        from train.compute.dask_training import computing_on  # needs an optional dependency
    except ImportError as error:
        raise ClusterUnavailable(
            f"--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from error
    with computing_on(where) as compute:
        yield compute
