"""Backfill: score the stored messages that a model has not scored yet, in the background."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from feedsieve import metrics
from feedsieve.scoring.scorer import Scorer
from feedsieve.serving.claims import PARTS, Claims, NoClaims, bounds
from feedsieve.store.store import MessageStore

READ_AT_ONCE = 256  # texts; their scores are saved before the next are read


def backfill(
    store: MessageStore,
    scorer: Scorer,
    precomputed: dict[str, float] | None = None,
    progress: Callable[[int], object] | None = None,
    between_batches: Callable[[], object] | None = None,
    at_once: int = READ_AT_ONCE,
    claims: Claims | None = None,
    scored: Callable[[Mapping[str, str], Mapping[str, float]], object] | None = None,
    finished: set[int] | None = None,
) -> bool:
    """Score every text of `store` that the model has not scored; mark the model complete then.

    With `claims`, parts that another process has claimed are left to it. Return whether every text
    that was there at the start has a score; texts that came meanwhile may have none. `finished`
    collects the parts that this process has finished, over several calls. Once it has all of them,
    the model is complete, even if more texts keep coming.

    Scores in `precomputed`, by fingerprint, are saved as they are, and removed from it. `progress`
    is called with the number of texts done since its last call, `between_batches` between batches
    of the encoder; if the latter raises, the scores of at most `at_once` texts are lost. `scored`
    is called with texts and their scores, by fingerprint, once they are saved. If scores cannot be
    saved, they are added to `precomputed`. Raises StoreUnavailable.
    """
    store.start_model(scorer.model, scorer.threshold)
    precomputed = {} if precomputed is None else precomputed  # the caller may add scores meanwhile
    earlier = list(precomputed)
    finished = set() if finished is None else finished
    this_time: set[int] = set()
    for batch in _batches(store, scorer.model, at_once, claims or NoClaims(), this_time):
        new = {key: text for key, text in batch if key not in precomputed}
        scores = scorer.score(
            list(new.values()),
            (lambda _done: between_batches()) if between_batches else None,
            eager=False,
        )
        metrics.BACKFILLED_SCORES.observe(scores.tolist(), scorer.threshold)
        precomputed.update(zip(new, scores.tolist(), strict=True))
        store.save_scores(scorer.model, [(key, precomputed[key]) for key, _text in batch])
        if scored:
            scored(new, {key: precomputed[key] for key in new})
        for key, _text in batch:
            precomputed.pop(key, None)
        if progress:
            progress(len(batch))
    finished |= this_time
    all_scored = len(this_time) == PARTS or not store.unscored(scorer.model, 1)
    if all_scored:
        for key in earlier:  # scored by other servers, or deleted
            precomputed.pop(key, None)
    if all_scored or len(finished) == PARTS:
        store.mark_complete(scorer.model)
    return all_scored


def _batches(
    store: MessageStore, model: str, at_once: int, claims: Claims, finished: set[int]
) -> Iterator[list[tuple[str, str]]]:
    """Yield batches of texts without a score, claimed until the next one is asked for.

    Parts whose texts were all yielded before that are added to `finished`.
    """
    batch: list[tuple[str, str]] = []
    claimed: list[int] = []
    for part in range(PARTS):
        if not claims.claim(part):
            continue
        claimed.append(part)
        after, end = bounds(part)
        # Read after the claim: the process that had it before has saved its scores.
        while found := store.unscored(model, at_once - len(batch), after, end):
            batch += found
            after = found[-1][0]
            if len(batch) == at_once:
                yield batch
                batch = []
                _release(claims, claimed[:-1], finished)
                claimed = [part]
        if not batch:
            _release(claims, claimed, finished)
            claimed = []
    if batch:
        yield batch
    _release(claims, claimed, finished)


def _release(claims: Claims, parts: list[int], finished: set[int]) -> None:
    for part in parts:
        claims.release(part)
    finished.update(parts)


class Throttle:
    """Pauses the backfill while requests are in progress, for a bounded time."""

    MAX_PAUSE = 4  # times the work since the last pause: under full load the backfill gets a fifth

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._requests = 0
        self.resume()

    def resume(self) -> None:
        """Measure the work from now on."""
        self._resumed = time.monotonic()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in progress until the block ends."""
        with self._idle:
            self._requests += 1
        try:
            yield
        finally:
            with self._idle:
                self._requests -= 1
                self._idle.notify_all()

    def pause(self) -> None:
        """Wait until no request is in progress, at most `MAX_PAUSE` times the last work."""
        worked = time.monotonic() - self._resumed
        with self._idle:
            self._idle.wait_for(lambda: not self._requests, self.MAX_PAUSE * worked)
        self.resume()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait so long at most; return whether no request is in progress."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._requests, seconds)
