"""Backfill: score the stored messages that a model has not scored yet, in the background."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feedsieve import metrics
from feedsieve.scoring.scorer import Scorer
from feedsieve.store.store import MessageStore

READ_AT_ONCE = 256  # texts; their scores are saved before the next are read


def backfill(
    store: MessageStore,
    scorer: Scorer,
    precomputed: dict[str, float] | None = None,
    progress: Callable[[int], object] | None = None,
    between_batches: Callable[[], object] | None = None,
    at_once: int = READ_AT_ONCE,
) -> None:
    """Score every text of `store` that the model has not scored, and mark the model complete.

    Scores in `precomputed`, by fingerprint, are saved as they are. `progress` is called with the
    number of texts done since its last call, `between_batches` between batches of the encoder; if
    the latter raises, the scores of at most `at_once` texts are lost. Raises StoreUnavailable.
    """
    store.start_model(scorer.model, scorer.threshold)
    precomputed = {} if precomputed is None else precomputed  # the caller may add scores meanwhile
    after = ""
    while batch := store.unscored(scorer.model, at_once, after):
        new = {key: text for key, text in batch if key not in precomputed}
        scores = scorer.score(
            list(new.values()),
            (lambda _done: between_batches()) if between_batches else None,
            eager=False,
        )
        computed = dict(zip(new, scores.tolist(), strict=True))
        metrics.BACKFILLED_SCORES.observe(computed.values(), scorer.threshold)
        store.save_scores(
            scorer.model,
            [(key, computed[key] if key in computed else precomputed[key]) for key, _text in batch],
        )
        if progress:
            progress(len(batch))
        after = batch[-1][0]
    store.mark_complete(scorer.model)


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
