"""A model in service, with what belongs to it alone."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate

from feedsieve.scoring.scorer import ScoredText, Scorer
from feedsieve.serving.admission import MAX_PIECE, Speed, cost
from feedsieve.serving.batcher import DynamicBatcher
from feedsieve.serving.score_cache import ScoreCache

Texts = Mapping[str, str]  # by fingerprint
Scores = Mapping[str, ScoredText]  # by fingerprint
Compute = Callable[[Scorer, ScoreCache, Speed, Sequence[Texts], Callable[[], object]], Scores]

BATCH_SECONDS = 0.15  # of the encoder; a request waits for two batches at most, and its own


class ServedModel:
    """A scorer, its cached scores, and the queue of texts for it.

    A request keeps the one it began with, so that its scores and decisions are of one model. The
    memory is free once no request has it: nothing here refers back to it.
    """

    def __init__(self, scorer: Scorer, cached: int, compute: Compute) -> None:
        """Cache at most `cached` scores. `compute` scores texts in a thread."""
        self.scorer = scorer
        self.cache = ScoreCache(cached)
        self.unsaved: dict[str, float] = {}  # scores by fingerprint, for the backfill
        self._speed = Speed()  # of the encoder, without what the word model alone scores
        self._scoring = DynamicBatcher[Texts, Scores](
            "scoring", partial(compute, scorer, self.cache, self._speed), MAX_PIECE
        )

    async def score_new(self, texts: Texts) -> Scores:
        """Return the scores of texts that are not cached, and of others of their batches.

        Large requests are scored in pieces, between which others take their turn. Raises what
        `compute` raises.
        """
        self._scoring.max_cost = BATCH_SECONDS * self._speed.value
        pieces = _pieces(texts, min(MAX_PIECE, self._scoring.max_cost))
        costs = [cost(piece.values()) for piece in pieces]
        submitted = map(self._scoring.submit, pieces, costs, accumulate(costs, initial=0))
        if len(pieces) == 1:
            return await next(submitted)
        answers = await asyncio.gather(*submitted)
        return {
            key: answer[key] for piece, answer in zip(pieces, answers, strict=True) for key in piece
        }


def _pieces(texts: Texts, most: float) -> list[Texts]:
    """Return the texts of a request in pieces of at most `most` characters, or one text.

    Shorter texts come first: those of a piece are of like lengths, and need little padding.
    """
    if cost(texts.values()) <= most:
        return [texts]
    pieces: list[dict[str, str]] = []
    room = 0.0
    for key, text in sorted(texts.items(), key=lambda item: len(item[1])):
        characters = cost([text])
        if not pieces or characters > room:
            pieces.append({})
            room = most
        pieces[-1][key] = text
        room -= characters
    return list(pieces)
