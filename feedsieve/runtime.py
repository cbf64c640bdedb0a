"""What the service runs on: a scorer and a message store, brought up and kept up in a thread."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from bentoml.exceptions import ServiceUnavailable

from feedsieve import metrics
from feedsieve.backlog import Courtesy, score_backlog
from feedsieve.batches import Batches
from feedsieve.explain import Explanation, explain
from feedsieve.lean import import_lightgbm_alone
from feedsieve.message import StoreUnavailable
from feedsieve.models import NoModel, load_scorer
from feedsieve.patience import Patience
from feedsieve.recall import Recall
from feedsieve.scorer import Scorer, Verdict
from feedsieve.server_exit import end_server
from feedsieve.settings import Settings
from feedsieve.store import MessageStore, Scored
from feedsieve.text import fingerprint

_log = logging.getLogger("feedsieve")

Texts = Mapping[str, str]  # by fingerprint
Verdicts = Mapping[str, Verdict]  # by fingerprint

MOST_READ = 64  # messages at once
LARGEST_BATCH = 256  # texts that are scored together
LONGEST_WAIT = 40.0  # seconds; BentoML's time-out is longer, and a guess may be wrong
COLLECTED_AFTER = 10_000, 10, 100  # new objects, collections of new ones, and of those that stayed
LOOK_EVERY = 5.0  # seconds between two looks for messages without a score
LONGEST_GOODBYE = 5.0  # seconds; a container's engine kills after ten
SHARE_OF_TIME = 0.05  # that looking may take, should the store grow so large that it is slow


class NotReady(ServiceUnavailable):
    """The model is still being loaded, or could not be."""


class Runtime:
    """The model and the message store, each as soon as it is there.

    The model never changes while a runtime lives; messages may be added to the store by other
    processes at any time, and are scored within seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scorer: Scorer | None = None
        self._store: MessageStore | None = None
        self._store_failure = "the message store is being opened"
        self._failure: Exception | None = None
        self._known: dict[str, float] = {}  # scores by fingerprint that are yet to be saved
        self._is_complete = False  # whether every message had a score once
        self._look_took = 0.0  # seconds; a look goes through all messages
        self._looked_at: int | None = None  # the version of the store in which all had scores
        self._stopping = threading.Event()
        self._courtesy = Courtesy()
        self._recall = Recall(settings.recalled)
        self._patience = Patience(LONGEST_WAIT)
        self._scoring = Batches[Texts, Verdicts]("scoring", self._compute, LARGEST_BATCH)
        self._reading = Batches[tuple[str, ...], dict[str, Scored]](
            "reading", self._read, MOST_READ
        )
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the batch it is at, or leave it if it waits for the database."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LONGEST_GOODBYE)

    @property
    def is_ready(self) -> bool:
        """Whether texts can be scored."""
        return self._scorer is not None

    @property
    def has_failed(self) -> bool:
        """Whether the model could not be loaded, so that only a restart can help."""
        return self._failure is not None

    @property
    def scorer(self) -> Scorer:
        """The scorer. Raises NotReady."""
        if self._scorer is None:
            raise NotReady(
                "the model could not be loaded; the server's log says why"
                if self._failure
                else "the model is being loaded"
            )
        return self._scorer

    @property
    def store(self) -> MessageStore:
        """The message store. Raises StoreUnavailable."""
        if self._store is None:
            raise StoreUnavailable(self._store_failure)
        return self._store

    async def score(self, texts: Sequence[str]) -> list[Verdict]:
        """Return a verdict on each text, given together with those of other requests.

        Texts of one fingerprint are scored once, and not at all if they were before. Raises
        NotReady, and TooMuch if they would have to wait too long.
        """
        marks = [fingerprint(text) for text in texts]
        found: Verdicts = self._recall.find(marks)
        new = {mark: text for mark, text in zip(marks, texts, strict=True) if mark not in found}
        metrics.RECALLED.inc(len(texts) - len(new))
        if new:
            with self._patience.place(new.values()):
                found = {**found, **await self._scoring.answer(new)}
        return [found[mark] for mark in marks]

    async def find(self, identifier: str) -> Scored | None:
        """Return a message and its score, None if there is none of this identifier.

        Those that are asked for together are read together. Raises NotReady and StoreUnavailable.
        """
        return (await self._reading.answer((identifier,))).get(identifier)

    def explain(self, text: str) -> Explanation:
        """Return what contributes to the score of `text`, before any work in the background."""
        with self._courtesy.request():
            return explain(self.scorer, text)

    def remember(self, text: str, score: float) -> None:
        """Let the background save this score of a stored message, instead of computing it."""
        self._known[fingerprint(text)] = score

    def _read(
        self, requests: Sequence[tuple[str, ...]], _let_next: Callable[[], object]
    ) -> dict[str, Scored]:
        return self.store.find(self.scorer.model, list(chain.from_iterable(requests)))

    def _compute(self, requests: Sequence[Texts], let_next: Callable[[], object]) -> Verdicts:
        """Score the texts of `requests`, but for those that were scored before it begins.

        The next batch may begin as soon as the encoder has nothing of this one left to begin.
        """
        texts = {mark: text for request in requests for mark, text in request.items()}
        found = self._recall.find(texts)
        new = {mark: text for mark, text in texts.items() if mark not in found}
        started = time.monotonic()
        with self._courtesy.request():
            judged = self.scorer.judge(list(new.values()), all_begun=let_next)
        self._patience.learn(new.values(), time.monotonic() - started)
        found |= zip(new, judged.verdicts(), strict=True)
        self._recall.keep(found)
        by_words = int(judged.by_words.sum())
        metrics.BATCH.observe(sum(map(len, requests)))
        metrics.BY_WORDS.inc(by_words)
        metrics.EMBEDDED.inc(len(new) - by_words)
        metrics.RECALLED.inc(sum(map(len, requests)) - len(new))
        return found

    def _run(self) -> None:
        try:
            settings = self._settings
            import_lightgbm_alone()
            scorer = load_scorer(settings.model, settings.threads, cascade=settings.cascade)
            first = ["the first call is slow"]
            scorer.classifier.score(first, scorer.encoder.encode(first))
        except Exception as error:
            self._failure = error
            if isinstance(error, NoModel):
                _log.error("%s", error)
            else:
                _log.exception("the model %s cannot be loaded", self._settings.model)
            end_server()
            return
        gc.collect()
        # What is loaded stays, and so for a minute does what BentoML keeps of each request: looking
        # through either would hold up requests.
        gc.freeze()
        gc.set_threshold(*COLLECTED_AFTER)
        metrics.show_backend(scorer.model, scorer.encoder.selection)
        self._scorer = scorer
        _log.info("%s is ready, threshold %.3f", scorer.model, scorer.threshold)
        while not self._stopping.is_set():
            self._look(scorer)
            self._stopping.wait(max(LOOK_EVERY, self._look_took / SHARE_OF_TIME))

    def _look(self, scorer: Scorer) -> None:
        """Open the store if it is not open, and score what is new in it."""
        done = 0

        def show(count: int) -> None:
            nonlocal done
            done += count
            _log.info("scored %d messages in the background", done)

        try:
            if self._store and self._store.is_replaced():
                _log.warning("%s is another file now, and is opened anew", self._store.location)
                self._store.close()
                self._store = self._looked_at = None
                self._is_complete = False
            if self._store is None:
                self._store = MessageStore.open(
                    self._settings.db, state_folder=self._settings.state
                )
            version = self._store.version()
            if version is not None and version == self._looked_at:
                return
            started = time.monotonic()
            found = self._store.unscored(scorer.model, 1)
            self._look_took = time.monotonic() - started
            if found or not self._is_complete:
                self._courtesy.resume()
                score_backlog(self._store, scorer, self._known, show, self._between_batches)
                self._is_complete = True
                self._known = {}
            self._looked_at = version
        except _Stopped:
            pass
        except StoreUnavailable as error:
            self._store_failure = str(error)
            _log.error("%s; trying again", error)
        except Exception:
            _log.exception("scoring in the background failed; trying again")

    def _between_batches(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
        self._courtesy.give_way()


class _Stopped(Exception):
    """The service ends."""
