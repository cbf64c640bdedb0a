"""Shadow scoring: a second model scores a share of the live texts while nothing else waits."""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from feedsieve import metrics
from feedsieve.errors import FeedsieveError
from feedsieve.scoring.scorer import Scorer
from feedsieve.serving.backfill import Throttle
from feedsieve.serving.model_swap import CHECK_INTERVAL, load_checked, one_line, server_name
from feedsieve.serving.served_model import ServedModel
from feedsieve.serving.watching import HasStore
from feedsieve.settings import Settings
from feedsieve.shadow_comparison import compare
from feedsieve.store.shadows import MAX_PAIRS, Shadow, ShadowOutcome, ShadowPair
from feedsieve.store.store import MessageStore

_log = logging.getLogger("feedsieve")

MAX_WAITING = 256  # texts
MAX_LENGTH = 20_000  # characters of a text that may wait; models read half as many
POLL_INTERVAL = 0.2  # seconds between two looks for a text, or for a pause of the requests
SAVE_INTERVAL = 30.0  # seconds; each write to SQLite makes the backfill look for new messages


class HasModel(HasStore, Protocol):
    """A holder of a message store and of the model in service, which it may replace."""

    @property
    def model(self) -> ServedModel:
        """The model. Raises FeedsieveError until it is loaded."""


class _Sample(NamedTuple):
    model: str
    fingerprint: str
    text: str
    score: float
    is_positive: bool


class ShadowScoring:
    """Compares the wanted shadow with the served model, in a thread of its own.

    It scores one text at a time, on one thread of the encoder, and starts none while requests
    wait. Texts that it cannot keep up with are dropped and counted. Whatever it does wrong ends
    the shadow on this server, never a request.
    """

    def __init__(self, settings: Settings, holder: HasModel) -> None:
        self._settings = settings
        self._holder = holder
        self._scorer: Scorer | None = None
        self._share = 0.0
        self._followed: tuple[Shadow | None, str | None] = None, None
        self._unsent: ShadowOutcome | None = None
        self._waiting: deque[_Sample] = deque()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()  # model, fingerprint
        self._seen_lock = threading.Lock()
        self._pairs: dict[str, list[ShadowPair]] = {}  # not saved yet, by the served model
        self._next_check = self._next_save = 0.0
        self._requests = Throttle()
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """Let the thread end, which saves the last scores; do not wait for it."""
        self._stopping.set()

    @property
    def is_loaded(self) -> bool:
        """True while a shadow is compared with the served model."""
        return self._scorer is not None

    def request(self) -> AbstractContextManager[None]:
        """Start no text until the block ends."""
        return self._requests.request()

    def offer(self, scorer: Scorer, texts: Mapping[str, str], scores: Mapping[str, float]) -> None:
        """Sample from texts that `scorer` has scored, both by fingerprint, without waiting."""
        shadow = self._scorer  # the thread may drop it
        if shadow is None or scorer.model == shadow.model:
            return
        for key, text in texts.items():
            if not is_sampled(key, self._share) or not self._is_new(scorer.model, key):
                continue
            if len(self._waiting) >= MAX_WAITING or len(text) > MAX_LENGTH:
                metrics.SHADOW_TEXTS.labels("dropped").inc()
                self._forget(scorer.model, key)
                continue
            is_positive = scores[key] >= scorer.threshold
            self._waiting.append(_Sample(scorer.model, key, text, scores[key], is_positive))

    def _is_new(self, model: str, key: str) -> bool:
        """Return whether a text was not sampled yet, and note it."""
        with self._seen_lock:
            if (model, key) in self._seen:
                return False
            self._seen[model, key] = None
            if len(self._seen) > MAX_PAIRS:
                self._seen.popitem(last=False)
            return True

    def _forget(self, model: str, key: str) -> None:
        with self._seen_lock:
            self._seen.pop((model, key), None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                store = self._holder.store
                self._follow(store)
                self._save_if_due(store)
                self._score_next()
            except FeedsieveError:  # no store or no model yet: the runtime logs it
                self._stopping.wait(CHECK_INTERVAL)
            except Exception:
                _log.exception("shadow scoring failed; trying again")
                self._stopping.wait(CHECK_INTERVAL)
        with suppress(FeedsieveError):
            self._save(self._holder.store)

    def _follow(self, store: MessageStore) -> None:
        """Load the wanted shadow if it is another one, or drop it. Raises StoreUnavailable."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + CHECK_INTERVAL
        wanted, served = store.shadow(), self._holder.model.scorer.model
        tag = wanted.tag if wanted and wanted.tag != served else None
        if (wanted, tag) != self._followed:
            self._save(store)
            self._unload()
            self._followed, self._unsent = (wanted, tag), None
            if wanted and tag:
                self._load(tag, wanted.share)
        if wanted and self._unsent:
            store.save_shadow_outcome(wanted.number, self._unsent)
            self._unsent = None

    def _load(self, tag: str, share: float) -> None:
        _log.info("loading %s, the shadow, to score %.3g of the texts", tag, share)
        try:
            scorer = load_checked(tag, self._settings, threads=1)
        except Exception as error:  # a bad model, out of memory, or a bug
            self._end("refused", one_line(error))
            return
        self._share, self._scorer = share, scorer
        self._unsent = ShadowOutcome(server_name(), None, datetime.now(UTC))
        metrics.SHADOW_LOADS.labels("done").inc()
        metrics.SHADOW_LOADED.set(1)
        self._next_save = 0.0  # show what earlier runs and other servers have compared

    def _unload(self) -> None:
        self._scorer = None
        self._waiting.clear()
        with self._seen_lock:
            self._seen.clear()
        metrics.SHADOW_LOADED.set(0)
        metrics.show_comparison(None)

    def _end(self, outcome: str, reason: str) -> None:
        """Go on without the shadow, until another one is wanted; `outcome` is for the metric."""
        _wanted, tag = self._followed
        # The message of an unexpected error may quote the text; the log leaves it out.
        _log.error("the shadow %s %s: %s", tag, outcome, reason, exc_info=outcome == "failed")
        metrics.SHADOW_LOADS.labels(outcome).inc()
        self._unsent = ShadowOutcome(server_name(), reason, datetime.now(UTC))
        self._unload()

    def _score_next(self) -> None:
        """Score a text that waits once no request does; else wait for a moment."""
        scorer = self._scorer
        if scorer is None or not self._waiting:
            self._stopping.wait(POLL_INTERVAL)
            return
        if not self._requests.wait_until_idle(POLL_INTERVAL):
            return
        sample = self._waiting.popleft()
        try:
            score = float(scorer.score([sample.text], eager=False)[0])
            if not 0 <= score <= 1:
                raise ValueError("a score is not from 0 to 1")
        except Exception as error:
            self._end("failed", f"{type(error).__name__} while it scored a text")
            return
        pair = ShadowPair(
            sample.fingerprint,
            sample.score,
            score,
            sample.is_positive,
            score >= scorer.threshold,
            datetime.now(UTC),
        )
        self._pairs.setdefault(sample.model, []).append(pair)
        metrics.SHADOW_TEXTS.labels("compared").inc()

    def _save_if_due(self, store: MessageStore) -> None:
        """Save the scores and show the figures of all servers. Raises StoreUnavailable."""
        if time.monotonic() < self._next_save:
            return
        self._save(store)
        if self._scorer:
            pairs = store.pairs(self._holder.model.scorer.model, self._scorer.model)
            metrics.show_comparison(compare(pairs) if pairs else None)
        self._next_save = time.monotonic() + SAVE_INTERVAL

    def _save(self, store: MessageStore) -> None:
        _wanted, tag = self._followed
        for model in list(self._pairs):
            if tag:
                store.save_pairs(model, tag, self._pairs[model])
            del self._pairs[model]


def is_sampled(fingerprint: str, share: float) -> bool:
    """Return whether a text is in the share, 0 to 1, by its fingerprint: the same on all servers.

    A larger share has all texts of a smaller one. The last digits count, since the backfill goes
    by the first.
    """
    return int(fingerprint[-8:], 16) < share * 2**32
