"""The model and the message store behind the routes, loaded and updated in a thread."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, compress, islice

from feedsieve import metrics
from feedsieve.errors import FeedsieveError
from feedsieve.message import Message, StoreUnavailable
from feedsieve.scoring.classifier import import_lightgbm_alone
from feedsieve.scoring.explain import Explanation, explain
from feedsieve.scoring.model_store import ModelNotFound
from feedsieve.scoring.scorer import ScoredText, Scorer
from feedsieve.serving.admission import AdmissionControl, Speed, cost
from feedsieve.serving.backfill import Throttle, backfill
from feedsieve.serving.batcher import DynamicBatcher
from feedsieve.serving.claims import open_claims
from feedsieve.serving.key_cache import KeyCache
from feedsieve.serving.model_swap import CHECK_INTERVAL, ModelSwap
from feedsieve.serving.score_cache import ScoreCache, fingerprints
from feedsieve.serving.served_model import Scores, ServedModel, Texts
from feedsieve.serving.server_exit import end_server
from feedsieve.serving.shadow import ShadowScoring
from feedsieve.serving.store_health import Backlog, StoreState, store_state
from feedsieve.serving.watch_runs import WatchThread
from feedsieve.serving.watching import sqlite_file
from feedsieve.settings import Settings
from feedsieve.store.ingest import Stored
from feedsieve.store.store import MessageStore, Scored
from feedsieve.text import MOST_MARKS, normalise, route_id
from feedsieve.tracing import span

_log = logging.getLogger("feedsieve")


class Batch(tuple[Message, ...]):
    """Messages of one request to store; equal ones of two requests are two batches."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


MAX_MESSAGES = 64  # read in one query
MAX_STORED = 1024  # messages stored in one transaction
MAX_BYTES = 32_000_000  # of request bodies in progress
MAX_WAIT = 40.0  # seconds; less than BentoML's timeout, since it is an estimate
GC_THRESHOLDS = 10_000, 10, 100  # of `gc.set_threshold`
POLL_INTERVAL = 5.0  # seconds between two checks for messages without a score
WRITE_INTERVAL = 60.0  # seconds between two checks that the store can be written
MAX_POLL_SHARE = 0.05  # of the time, should the store grow so large that a check is slow
STOP_TIMEOUT = 1.5  # seconds, after those of FEEDSIEVE_STOP_SECONDS


class ModelNotReady(FeedsieveError):
    """The model is being loaded, or loading it failed."""


class Runtime:
    """The model and the message store, each available as soon as it is loaded.

    The model changes when the store wants another one; a request keeps the one it began with.
    Messages that other processes add are scored within seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: ServedModel | None = None
        self._store: MessageStore | None = None
        self._store_failure = StoreUnavailable("the message store is being opened")
        self._failure: Exception | None = None
        self._is_complete = False  # whether every message has had a score
        self._finished: set[int] = set()  # parts that this server has scored with the model
        self._poll_seconds = 0.0  # duration of the last check, which reads all messages
        self._complete_version: int | None = None  # of the store when all had scores
        self._write_due = 0.0  # when to check that the store can be written
        self._stopping = threading.Event()
        self._scored_at = 0.0  # when the last batch of requests ended
        self._throttle = Throttle()
        self._swap = ModelSwap(settings)
        self.admission = AdmissionControl(settings.waiting, MAX_BYTES, MAX_WAIT)
        self._reading = DynamicBatcher[tuple[tuple[str, str]], dict[tuple[str, str], Scored]](
            "reading", self._read, MAX_MESSAGES
        )
        self._writing = DynamicBatcher[Batch, dict[Batch, list[Stored]]](
            "writing", self._write, MAX_STORED
        )
        self._thread = threading.Thread(target=self._run, name="backfill", daemon=True)
        self._watching = WatchThread(settings, self)
        self._shadow = ShadowScoring(settings, self)
        self.keys = KeyCache(settings, self)

    def start(self) -> None:
        self._thread.start()
        self._watching.start()
        self._shadow.start()
        self.keys.start()

    def begin_stop(self) -> None:
        """Be no longer ready, and let the threads end after their batches. For signal handlers."""
        self._stopping.set()
        self._watching.stop()
        self._shadow.stop()
        self.keys.stop()

    def stop(self) -> None:
        """Stop the threads after their batches; do not wait longer than `STOP_TIMEOUT`."""
        self.begin_stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in (self._thread, self._watching.thread, self._shadow.thread):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def is_ready(self) -> bool:
        """True once texts can be scored, until the server ends."""
        return self._model is not None and not self._stopping.is_set()

    @property
    def has_failed(self) -> bool:
        """True if loading the model failed, so that only a restart can help."""
        return self._failure is not None

    @property
    def model(self) -> ServedModel:
        """The model in service; use the same one for all of a request. Raises ModelNotReady."""
        if self._model is None:
            raise ModelNotReady(
                "the model could not be loaded; the server's log says why"
                if self._failure
                else "the model is being loaded"
            )
        return self._model

    @property
    def store(self) -> MessageStore:
        """The message store. Raises StoreUnavailable."""
        if self._store is None:
            raise self._store_failure
        return self._store

    async def score(
        self, model: ServedModel, texts: Sequence[str], stored: bool = False
    ) -> list[ScoredText]:
        """Return the score of each text, scored in one batch with those of other requests.

        Texts of one fingerprint are scored once, and not again if the score is cached. If they are
        `stored`, the backfill saves their scores instead of computing them. Raises Overloaded if
        they would wait too long.
        """
        keys = await fingerprints(texts)
        scores: Scores = model.cache.get(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in scores}
        metrics.RECALLED.inc(len(texts) - len(new))
        if new:
            with (
                self.admission.scoring(new.values()),
                metrics.QUEUE.waiting(len(new)),
                self._shadow.request(),
            ):
                scores = {**scores, **await model.score_new(new)}
        if stored:
            model.unsaved.update({key: scores[key].score for key in keys})
        if self._shadow.is_loaded:
            live = {key: scores[key].score for key in keys}
            self._shadow.offer(model.scorer, dict(zip(keys, texts, strict=True)), live)
        return [scores[key] for key in keys]

    async def find(self, model: ServedModel, identifier: str) -> Scored | None:
        """Return a message and the model's score, or None if no message has this identifier.

        Concurrent calls share one query. Raises StoreUnavailable.
        """
        if "\x00" in identifier:  # nothing is stored with it
            return None
        key = model.scorer.model, route_id(identifier)
        return (await self._reading.submit((key,))).get(key)

    async def add(self, messages: Sequence[Message]) -> list[Stored]:
        """Store messages; return the outcome of each once they are committed.

        Concurrent calls share one transaction. Raises StoreUnavailable.
        """
        batch = Batch(messages)
        return (await self._writing.submit(batch))[batch]

    def store_state(self) -> StoreState:
        """Return whether the store can be read and written. It waits for the database."""
        return store_state(self)

    def explain(self, model: ServedModel, text: str) -> Explanation:
        """Explain the score of `text`. The backfill pauses meanwhile."""
        with self._throttle.request(), self._shadow.request():
            return explain(model.scorer, text)

    def _read(
        self, requests: Sequence[tuple[tuple[str, str]]], _let_next: Callable[[], object]
    ) -> dict[tuple[str, str], Scored]:
        """Find messages by their model and identifier; at a change there are two models."""
        wanted: dict[str, list[str]] = {}
        for model, identifier in chain.from_iterable(requests):
            wanted.setdefault(model, []).append(identifier)
        with span("store"):
            return {
                (model, identifier): scored
                for model, identifiers in wanted.items()
                for identifier, scored in self.store.find(model, identifiers).items()
            }

    def _write(
        self, requests: Sequence[Batch], _let_next: Callable[[], object]
    ) -> dict[Batch, list[Stored]]:
        with span("store"):
            stored = iter(self.store.save_messages(list(chain.from_iterable(requests))))
        return {request: list(islice(stored, len(request))) for request in requests}

    def _compute(
        self,
        scorer: Scorer,
        cache: ScoreCache,
        speed: Speed,
        requests: Sequence[Texts],
        let_next: Callable[[], object],
    ) -> Scores:
        """Score the texts of `requests`, except those cached since.

        `let_next` is called when the last batch of the encoder is submitted.
        """
        texts = {key: text for request in requests for key, text in request.items()}
        cached = cache.get(texts)
        new = {key: text for key, text in texts.items() if key not in cached}
        started = time.monotonic()
        with self._throttle.request():
            scores = scorer.score_texts(list(new.values()), all_submitted=let_next)
        ended = time.monotonic()
        seconds = ended - max(started, self._scored_at)  # two batches overlap
        self._scored_at = ended
        self.admission.measured(new.values(), seconds)
        if embedded := list(compress(new.values(), ~scores.by_words)):
            speed.measured(cost(embedded), seconds)
        all_scores = cached | dict(zip(new, scores.each(), strict=True))
        cache.put(all_scores)
        metrics.observe_batch(sum(map(len, requests)), len(new), len(embedded))
        metrics.REQUESTED_SCORES.observe(scores.scores.tolist(), scorer.threshold)
        return all_scores

    def _run(self) -> None:
        try:
            import_lightgbm_alone()
            scorer = self._swap.load_first()
        except Exception as error:
            self._failure = error
            if isinstance(error, ModelNotFound):
                _log.error("%s", error)
            else:
                _log.exception("the model %s cannot be loaded", self._settings.model)
            end_server()
            return
        normalise("\u0e01" * MOST_MARKS)  # builds a pattern: 30 ms that a request would pay
        gc.collect()
        # Scanning the model, and the 800 bytes that BentoML keeps of each request for a minute,
        # would delay requests.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._serve(scorer)
        del scorer  # it goes with the last request once another one is served
        while not self._stopping.is_set():
            self._backfill(self.model)
            self._follow_deployments(max(POLL_INTERVAL, self._poll_seconds / MAX_POLL_SHARE))

    def _serve(self, scorer: Scorer) -> None:
        """Serve `scorer` from the next request on. Requests in progress keep the one before."""
        metrics.show_backend(scorer.model, scorer.encoder.selection)
        self._forget_scored()
        self._model = ServedModel(scorer, self._settings.recalled, self._compute)
        _log.info("%s is ready, threshold %.3f", scorer.model, scorer.threshold)

    def _follow_deployments(self, seconds: float) -> None:
        """Wait for so long, or until another model is wanted and served."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            try:
                if self._store:
                    scorer = self._swap.load_wanted(self._store, self.model.scorer.model)
                    if scorer:
                        self._serve(scorer)
                    self._swap.send_outcome(self._store, self.model.scorer.model)
                    if scorer:
                        return
            except StoreUnavailable as error:
                self._store_failure = error  # the backfill tries again, and logs it
            except Exception:
                _log.exception("the wanted model cannot be read; trying again")
            self._stopping.wait(min(left, CHECK_INTERVAL))

    def _backfill(self, model: ServedModel) -> None:
        """Open the store if necessary, and score its new messages."""
        try:
            store = self._open_store()
            self._check_writing(store)
            version = store.version()
            if version is not None and version == self._complete_version:
                return
            started = time.monotonic()
            unscored = store.unscored(model.scorer.model, 1)
            metrics.show_newest(store.newest())
            self._poll_seconds = time.monotonic() - started
            if not unscored:
                metrics.BACKLOG.set(0)
            if unscored or not self._is_complete:
                self._is_complete = self._score_stored(store, model)
            if self._is_complete:  # else another server has claimed the rest
                self._complete_version = version
        except _Interrupted:
            pass
        except StoreUnavailable as error:
            self._store_failure = error
            _log.error("%s; trying again", error)
        except Exception:
            _log.exception("the backfill failed; trying again")

    def _open_store(self) -> MessageStore:
        """Return the store, opened anew if its file was replaced. Raises StoreUnavailable."""
        if self._store and self._store.is_replaced():
            _log.warning("%s is another file now; opening it again", self._store.location)
            self._store.close()
            self._store = None
            self._forget_scored()
        if self._store is None:
            store = MessageStore.open(
                self._settings.db, state_folder=self._settings.state, may_be_read_only=True
            )
            try:
                self.keys.read(store)  # before anyone writes
            except StoreUnavailable:
                store.close()  # this is tried again in seconds
                raise
            self._store = store
        return self._store

    def _forget_scored(self) -> None:
        """Treat every stored message as unscored: the model or the store has changed."""
        self._is_complete, self._complete_version, self._finished = False, None, set()

    def _score_stored(self, store: MessageStore, model: ServedModel) -> bool:
        """Score the stored texts that no other server scores; return whether all have a score."""
        self._throttle.resume()
        backlog = Backlog(store, model.scorer.model)
        self._poll_seconds += backlog.seconds
        done = 0

        def show(count: int) -> None:
            nonlocal done
            done += count
            backlog.scored(count)
            metrics.BACKFILLED.inc(count)
            _log.info("scored %d messages in the background", done)

        offer = partial(self._shadow.offer, model.scorer)
        with open_claims(self._settings.db, sqlite_file(store)) as claims:
            return backfill(
                store,
                model.scorer,
                model.unsaved,
                show,
                self._between_batches,
                claims=claims,
                scored=offer,
                finished=self._finished,
            )

    def _check_writing(self, store: MessageStore) -> None:
        """Write to the store if that failed before, and now and then. Raises StoreUnavailable."""
        if store.write_failure or time.monotonic() > self._write_due:
            self._write_due = time.monotonic() + WRITE_INTERVAL
            store.check_writing()

    def _between_batches(self) -> None:
        if self._stopping.is_set() or (self._store and self._swap.is_due(self._store)):
            raise _Interrupted
        self._throttle.pause()


class _Interrupted(Exception):
    """The service stops, or another model is wanted."""
