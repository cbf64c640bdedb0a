"""Scoring a file on a Dask cluster: the engine behind `feedsieve score --cluster`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from distributed import Client

from feedsieve.bulk.score_file import Progress
from feedsieve.bulk.tables import Part
from feedsieve.message import Label
from feedsieve.scoring import model_store
from feedsieve.scoring.scorer import Scorer
from train.compute.dask_cluster import Broadcast, connect


class ClusterScorer:
    """Scores parts on every worker of a cluster; a `feedsieve.bulk.score_file.Engine`.

    Workers receive both models, so they need no model store and no shared disk.
    """

    def __init__(self, client: Client, tag: str, *, cascade: bool = True) -> None:
        """Send the model `tag` to the workers; `cascade` as for `Scorer`. Raises ModelNotFound."""
        self._scorer = model_store.load_scorer(tag, threads=1)  # fail early on a damaged model
        classifier, encoder = model_store.find_pair(tag)
        folders = {
            "encoder": model_store.folder(encoder),
            "classifier": model_store.folder(classifier),
        }
        self._models = Broadcast(client, partial(_load_pair, classifier, cascade), folders)
        self.model = classifier
        self.cascade = cascade and self._scorer.cascade is not None

    def close(self) -> None:
        """Remove the models from the workers."""
        self._models.release()

    def label(self, score: float) -> Label:
        """Return the decision for a score."""
        return self._scorer.label(score)

    def score_parts(
        self, parts: Iterable[Part], progress: Progress
    ) -> Iterator[tuple[Part, np.ndarray]]:
        """Yield each part with its scores, (texts,), as they finish. Raises ClusterUnavailable."""
        for part, scores in self._models.map(_score, ((part, part.texts) for part in parts)):
            yield part, scores
            progress(len(part.texts))


@contextmanager
def scoring(where: str, tag: str, *, cascade: bool = True) -> Iterator[ClusterScorer]:
    """Yield a scorer on the cluster at `where`. Raises ClusterUnavailable and ModelNotFound."""
    with connect(where) as client:
        scorer = ClusterScorer(client, tag, cascade=cascade)
        try:
            yield scorer
        finally:
            scorer.close()


def _load_pair(model: str, cascade: bool, folder: Path) -> Scorer:
    return model_store.load_pair(
        folder / "encoder", folder / "classifier", model, threads=1, cascade=cascade
    )


def _score(texts: list[str], scorer: Scorer) -> np.ndarray:
    return scorer.score(texts)
