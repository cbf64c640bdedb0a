"""The state of the message store for probes and metrics, and the size of the backlog."""

import time
from dataclasses import dataclass
from typing import Literal

from feedsieve import metrics
from feedsieve.message import StoreUnavailable
from feedsieve.serving.watching import HasStore
from feedsieve.store.store import MessageStore

RECOUNT = 30.0  # seconds between two counts of the backlog while it is scored
MAX_COUNT_SHARE = 0.05  # of the time, should the store grow so large that a count is slow


@dataclass(frozen=True, slots=True)
class StoreState:
    """Whether a store can be used, and why not."""

    status: Literal["ready", "degraded", "unavailable"]
    reason: str | None = None


def store_state(holder: HasStore) -> StoreState:
    """Read from the store and return its state, as of its last write. Sets the metrics.

    It waits for the database.
    """
    try:
        store = holder.store
        store.check_reading()
    except StoreUnavailable as error:
        state = StoreState("unavailable", error.reason)
    else:
        failure = store.write_failure
        state = StoreState("degraded", failure) if failure else StoreState("ready")
    metrics.STORE_READABLE.set(state.status != "unavailable")
    metrics.STORE_WRITABLE.set(state.status == "ready")
    return state


class Backlog:
    """The number of texts without a score, as a metric. Other servers may score them, too."""

    def __init__(self, store: MessageStore, model: str) -> None:
        self._store = store
        self._model = model
        self.count()

    def count(self) -> None:
        """Count the texts. Raises StoreUnavailable."""
        started = time.monotonic()
        metrics.BACKLOG.set(self._store.count_unscored(self._model))
        self._counted = time.monotonic()
        self.seconds = self._counted - started
        """Duration of the last count."""

    def scored(self, count: int) -> None:
        """Subtract texts that were scored; count again if that is due. Raises StoreUnavailable."""
        metrics.BACKLOG.dec(count)
        if time.monotonic() - self._counted > max(RECOUNT, self.seconds / MAX_COUNT_SHARE):
            self.count()
