"""Follow the store's wanted model: load it beside the served one, or refuse it."""

import logging
import os
import socket
import time
from datetime import UTC, datetime

from feedsieve import metrics
from feedsieve.scoring.model_store import ModelNotFound, find_pair, load_scorer
from feedsieve.scoring.scorer import Scorer
from feedsieve.settings import Settings
from feedsieve.store.deployments import Deployment, DeploymentOutcome, Outcome, peek_wanted
from feedsieve.store.store import MessageStore

_log = logging.getLogger("feedsieve")

CHECK_INTERVAL = 2.0  # seconds between two looks into the store


class ModelSwap:
    """Loads the models that are wanted, each once. For one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = ""  # exact tag that FEEDSIEVE_MODEL names
        self._followed: Deployment | None = None  # the last one that was loaded or refused
        self._next_check = 0.0
        self._unsent: tuple[Outcome, str | None] | None = None

    def load_first(self) -> Scorer:
        """Load the model that the store wants, or FEEDSIEVE_MODEL if none or a bad one is wanted.

        Raises ModelNotFound for FEEDSIEVE_MODEL.
        """
        self._own, _encoder = find_pair(self._settings.model)
        self._followed = peek_wanted(self._settings.db, self._settings.state)
        tag = self._followed.tag if self._followed else None
        if tag not in (None, self._own):
            if scorer := self._load(tag):
                return scorer
            _log.warning("serving %s, FEEDSIEVE_MODEL, instead", self._own)
        elif self._followed:
            self._unsent = "done", None
        return load_checked(self._own, self._settings)

    def is_due(self, store: MessageStore) -> bool:
        """Return whether another model is wanted now; look at most each `CHECK_INTERVAL`.

        Raises StoreUnavailable.
        """
        now = time.monotonic()
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_INTERVAL
        return store.wanted() != self._followed

    def load_wanted(self, store: MessageStore, served: str) -> Scorer | None:
        """Load the wanted model, beside `served`, if it is another and was not refused already.

        Return None if nothing is to change. Raises StoreUnavailable.
        """
        wanted = store.wanted()
        if wanted == self._followed:
            return None
        self._followed = wanted
        tag = (wanted.tag if wanted else None) or self._own
        if tag == served:
            self._unsent = "done", None
            return None
        _log.info("%s is wanted; loading it beside %s", tag, served)
        return self._load(tag)

    def send_outcome(self, store: MessageStore, served: str) -> None:
        """Store what became of the last deployment, once. Raises StoreUnavailable."""
        if not self._unsent or not self._followed:
            return
        outcome, reason = self._unsent
        answer = DeploymentOutcome(server_name(), outcome, served, reason, datetime.now(UTC))
        store.save_outcome(self._followed.number, answer)
        self._unsent = None

    def _load(self, tag: str) -> Scorer | None:
        """Load a wanted model; return None, and say why, if it is refused."""
        try:
            scorer = load_checked(tag, self._settings)
        except Exception as error:  # a bad model, out of memory, or a bug: the served one goes on
            reason = one_line(error)
        else:
            self._unsent = "done", None
            metrics.MODEL_SWAPS.labels("done").inc()
            return scorer
        _log.error("%s is wanted and refused: %s", tag, reason)
        metrics.MODEL_SWAPS.labels("refused").inc()
        self._unsent = "refused", reason
        return None


def load_checked(tag: str, settings: Settings, threads: int | None = None) -> Scorer:
    """Load a model, which compares it with its reference outputs, and call it once.

    `threads` are those of the settings by default. Raises ModelNotFound.
    """
    count = settings.threads if threads is None else threads
    scorer = load_scorer(tag, count, cascade=settings.cascade)
    first = ["the first call is slow"]
    scorer.classifier.score(first, scorer.encoder.encode(first))
    return scorer


def one_line(error: Exception) -> str:
    """Return why a model cannot be loaded, on one line."""
    reason = str(error) if isinstance(error, ModelNotFound) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())


def server_name() -> str:
    """Return the name of this process among the servers of a store: machine and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"
