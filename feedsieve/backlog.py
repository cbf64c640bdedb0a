"""Scoring what a store holds and a model has not scored yet, in large batches."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feedsieve.scorer import Scorer
from feedsieve.store import MessageStore

READ_AT_ONCE = 256  # texts, sorted by length into batches; saved before the next are read


def score_backlog(
    store: MessageStore,
    scorer: Scorer,
    known: dict[str, float] | None = None,
    progress: Callable[[int], object] | None = None,
    between_batches: Callable[[], object] | None = None,
    at_once: int = READ_AT_ONCE,
) -> None:
    """Score every text of `store` that the model has not scored, and mark the model complete.

    `known` are scores by fingerprint that need no computing. `progress` is told how many texts
    were done since its last call. `between_batches` runs between two batches of the encoder; what
    it raises ends the work, of which at most `at_once` texts, those read at once, are then lost.

    Raises StoreUnavailable.
    """
    store.start_model(scorer.model, scorer.threshold)
    known = {} if known is None else known  # it may grow meanwhile
    after = ""
    while batch := store.unscored(scorer.model, at_once, after):
        new = {mark: text for mark, text in batch if mark not in known}
        computed = scorer.score(
            list(new.values()),
            (lambda _done: between_batches()) if between_batches else None,
            eager=False,
        )
        found = dict(zip(new, computed.tolist(), strict=True))
        store.save_scores(
            scorer.model,
            [(mark, found[mark] if mark in found else known[mark]) for mark, _text in batch],
        )
        if progress:
            progress(len(batch))
        after = batch[-1][0]
    store.mark_complete(scorer.model)


class Courtesy:
    """Lets work in the background wait while requests are answered, though not for ever."""

    PATIENCE = 4  # times the work just done, so that the backlog has its part under endless load

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._requests = 0
        self.resume()

    def resume(self) -> None:
        """Begin to work, after a time in which there was none."""
        self._resumed = time.monotonic()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Mark the time in which a request keeps the processor."""
        with self._idle:
            self._requests += 1
        try:
            yield
        finally:
            with self._idle:
                self._requests -= 1
                self._idle.notify_all()

    def give_way(self) -> None:
        """Wait until no request is being answered, or `PATIENCE` is at its end."""
        worked = time.monotonic() - self._resumed
        with self._idle:
            self._idle.wait_for(lambda: not self._requests, self.PATIENCE * worked)
        self.resume()
