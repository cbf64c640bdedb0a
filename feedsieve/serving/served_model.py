"""A model in service, with what belongs to it alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from feedsieve.scoring.scorer import ScoredText, Scorer
from feedsieve.serving.batcher import DynamicBatcher
from feedsieve.serving.score_cache import ScoreCache

Texts = Mapping[str, str]  # by fingerprint
Scores = Mapping[str, ScoredText]  # by fingerprint
Compute = Callable[[Scorer, ScoreCache, Sequence[Texts], Callable[[], object]], Scores]


class ServedModel:
    """A scorer, its cached scores, and the queue of texts for it.

    A request keeps the one it began with, so that its scores and decisions are of one model. The
    memory is free once no request has it: nothing here refers back to it.
    """

    def __init__(self, scorer: Scorer, cached: int, compute: Compute, max_batch: int) -> None:
        """Cache at most `cached` scores; call `compute` with at most `max_batch` texts at once."""
        self.scorer = scorer
        self.cache = ScoreCache(cached)
        self.unsaved: dict[str, float] = {}  # scores by fingerprint, for the backfill
        self.scoring = DynamicBatcher[Texts, Scores](
            "scoring", partial(compute, scorer, self.cache), max_batch
        )
