"""Prometheus metrics at `/metrics`; their number of series is bounded.

BentoML's own have one series for each path, so for each message, and take longer than all other
work for a small request.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, generate_latest
from starlette.responses import Response

from feedsieve import __version__
from feedsieve.scoring.backend_selection import Selection
from feedsieve.shadow_comparison import Comparison

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG_INTERVAL = 0.25  # seconds between two measurements of the event loop
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
Overload = Literal["requests", "storing", "bytes", "wait"]  # why admission control refused
OVERLOADS: tuple[Overload, ...] = ("requests", "storing", "bytes", "wait")
# Answers of other kinds that refuse a request, by status.
REFUSED_BY_STATUS = {
    400: "invalid",
    401: "key",
    403: "scope",
    408: "slow",
    413: "too_large",
    415: "media_type",
    422: "invalid",
    429: "rate",
}
ENDPOINTS = {
    "/",
    "/feed",
    "/messages",
    "/score",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/version",
}
MESSAGE = "/messages/{identifier}"

RECALLED = Counter("feedsieve_texts_recalled", "Texts in requests whose score was cached")
BY_WORDS = Counter("feedsieve_texts_by_words", "Texts in requests scored by the word model alone")
EMBEDDED = Counter("feedsieve_texts_embedded", "Texts in requests that the encoder embedded")
BACKFILLED = Counter("feedsieve_texts_backfilled", "Stored texts scored in the background")
BATCH = Histogram("feedsieve_batch_texts", "Texts scored together", buckets=TEXTS)
PAGES = Counter("feedsieve_pages", "Requested pages of the feed", ["outcome"])
CACHED_PAGES, RENDERED_PAGES = PAGES.labels("cached"), PAGES.labels("rendered")
REFUSALS = Counter("feedsieve_refusals", "Requests that were refused", ["reason"])
for _reason in (*OVERLOADS, "model", "store", *REFUSED_BY_STATUS.values()):
    REFUSALS.labels(_reason)  # from 0, or Prometheus would miss the first
ERRORS = Counter("feedsieve_errors", "Requests that failed with an unexpected error")
_SCORE = Histogram("feedsieve_score", "New scores, each text once", ["origin"], buckets=SCORES)
_POSITIVE = Counter("feedsieve_positive_scores", "New scores at or above the threshold", ["origin"])
IN_PROGRESS = Gauge("feedsieve_requests_in_progress", "Requests without a complete answer")
LAG = Histogram(
    "feedsieve_loop_lag_seconds", "Seconds by which the event loop was late", buckets=LAGS
)
Info("feedsieve_build", "The version of feedsieve").info({"version": __version__})
BACKEND = Info("feedsieve_backend", "The backend of the encoder, and how it was chosen")
MODEL_SWAPS = Counter(
    "feedsieve_model_swaps", "Deployed models that were loaded, or refused", ["outcome"]
)
for _outcome in ("done", "refused"):
    MODEL_SWAPS.labels(_outcome)  # so that the first one is an increase
SHADOW_LOADS = Counter(
    "feedsieve_shadow_loads", "Shadows that were loaded, refused, or failed later", ["outcome"]
)
for _outcome in ("done", "refused", "failed"):
    SHADOW_LOADS.labels(_outcome)
SHADOW_TEXTS = Counter("feedsieve_shadow_texts", "Texts of the shadow's share", ["outcome"])
for _outcome in ("compared", "dropped"):
    SHADOW_TEXTS.labels(_outcome)
SHADOW_LOADED = Gauge("feedsieve_shadow_loaded", "1 while a shadow is compared, else 0")
_SHADOW = {  # of all servers of the store
    name: Gauge(f"feedsieve_shadow_{name}", f"Shadow and served model: {meaning}")
    for name, meaning in (
        ("pairs", "texts that both have scored, of those the store keeps"),
        ("agreement", "share with the same decision"),
        ("more_positive", "share positive by the shadow minus that by the served model"),
        ("shift", "mean of the shadow's score minus the served model's"),
        ("mean_difference", "mean absolute difference of scores"),
        ("large_difference", "90th percentile of absolute differences of scores"),
        ("rank_correlation", "Spearman's rank correlation of scores"),
    )
}
STORE_READABLE = Gauge("feedsieve_store_readable", "1 if the message store can be read, else 0")
STORE_WRITABLE = Gauge("feedsieve_store_writable", "1 if the message store can be written, else 0")
BACKLOG = Gauge("feedsieve_backlog_texts", "Stored texts without a score by the served model")
NEWEST = Gauge(
    "feedsieve_newest_message_timestamp_seconds",
    "Seconds since 1970 at which the newest message was stored",
)
for gauge in (BACKLOG, NEWEST, *_SHADOW.values()):
    gauge.set(float("nan"))  # not known yet
WATCHED = Counter(
    "feedsieve_watched_messages", "Messages of live sources that were stored", ["source", "change"]
)
WATCH_FAILURES = Counter("feedsieve_watch_failures", "Failures of live sources", ["source"])
WATCH_SUCCESS = Gauge(
    "feedsieve_watch_last_success_timestamp_seconds",
    "Seconds since 1970 at which a live source last answered, or was first asked",
    ["source"],
)
WATCH_ENDED = Gauge("feedsieve_watch_ended", "1 once a live source has ended, else 0", ["source"])
_SECONDS = Histogram(
    "feedsieve_request_seconds",
    "Seconds from a request to the end of its answer",
    ["endpoint", "status"],
    buckets=SECONDS,
)


def source_added(label: str) -> None:
    """Start the series of a live source, so that its first failure is an increase."""
    WATCH_FAILURES.labels(label)
    WATCH_ENDED.labels(label).set(0)


def source_ended(label: str) -> None:
    """Count a live source that is not tried again as failed and ended."""
    WATCH_FAILURES.labels(label).inc()
    WATCH_ENDED.labels(label).set(1)


class Queue:
    """Texts in requests that wait to be scored or are being scored. For one event loop."""

    def __init__(self) -> None:
        self._entered: dict[object, tuple[float, int]] = {}  # oldest first: second, texts
        gauge = Gauge("feedsieve_queue_requests", "Requests that wait for scores")
        gauge.set_function(lambda: len(self._entered))
        gauge = Gauge("feedsieve_queue_texts", "Texts that wait for scores")
        gauge.set_function(lambda: sum(texts for _entered, texts in self._requests()))
        gauge = Gauge("feedsieve_queue_oldest_seconds", "Age of the oldest of them, or 0")
        gauge.set_function(self._oldest)

    @contextmanager
    def waiting(self, texts: int) -> Iterator[None]:
        """Count a request with so many texts as waiting until the block ends."""
        request = object()
        self._entered[request] = time.monotonic(), texts
        try:
            yield
        finally:
            del self._entered[request]

    def _requests(self) -> list[tuple[float, int]]:
        return list(self._entered.values())  # a scrape runs in a thread

    def _oldest(self) -> float:
        requests = self._requests()
        return time.monotonic() - requests[0][0] if requests else 0.0


QUEUE = Queue()


class ScoreDistribution:
    """New scores of one origin: their histogram, and the number of positive ones."""

    def __init__(self, origin: Literal["request", "backfill"]) -> None:
        self._scores, self._positive = _SCORE.labels(origin), _POSITIVE.labels(origin)

    def observe(self, scores: Iterable[float], threshold: float) -> None:
        """Count `scores`, in (0, 1); those of `threshold` or more are positive."""
        positive = 0
        for score in scores:
            self._scores.observe(score)
            positive += score >= threshold
        self._positive.inc(positive)


REQUESTED_SCORES, BACKFILLED_SCORES = ScoreDistribution("request"), ScoreDistribution("backfill")


def refused(reason: Overload | Literal["model", "store"]) -> None:
    """Count a request that was answered with 503."""
    REFUSALS.labels(reason).inc()


def show_backend(model: str, selection: Selection) -> None:
    """Set the labels of the info metric: the served model, its backend, and rejected ones."""
    labels = {
        name: "" if value is None else str(value) for name, value in selection.figures().items()
    }
    rejected = "; ".join(f"{name}: {why}" for name, why in selection.passed_over.items())
    BACKEND.info({"model": model, **labels, "passed_over": rejected})


def observe_batch(texts: int, new: int, embedded: int) -> None:
    """Count the texts of a batch: `new` were not cached, the encoder read `embedded` of them."""
    BATCH.observe(texts)
    BY_WORDS.inc(new - embedded)
    EMBEDDED.inc(embedded)
    RECALLED.inc(texts - new)


def show_newest(time: datetime | None) -> None:
    """Set the time at which the newest message was stored."""
    NEWEST.set(time.timestamp() if time else float("nan"))


def show_comparison(found: Comparison | None) -> None:
    """Set the figures of shadow and served model; None: there is nothing to compare."""
    values = dict.fromkeys(_SHADOW, float("nan"))
    if found:
        values |= {
            "pairs": found.texts,
            "agreement": found.agreement.value,
            "more_positive": found.more_positive.value,
            "shift": found.shift.value,
            "mean_difference": found.mean_difference,
            "large_difference": found.p90_difference,
        }
        if found.rank_correlation:
            values["rank_correlation"] = found.rank_correlation.value
    for name, value in values.items():
        _SHADOW[name].set(value)


def show() -> Response:
    """Return all metrics of this process in Prometheus' format."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Requests:
    """The requests of an event loop: how many are in progress, how long the answered ones took."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Histogram] = {}  # looking one up by its labels is slow
        self._in_progress = 0
        IN_PROGRESS.set_function(lambda: self._in_progress)

    def begin(self) -> None:
        """Count a request as in progress."""
        self._in_progress += 1

    def end(self, endpoint: str, status: int, seconds: float) -> None:
        """Observe the end of an answer, or that the client disconnected (499)."""
        self._in_progress -= 1
        if status in REFUSED_BY_STATUS:
            REFUSALS.labels(REFUSED_BY_STATUS[status]).inc()
        elif status >= 500 and status != 503:
            ERRORS.inc()
        key = endpoint, status
        if key not in self._series:
            self._series[key] = _SECONDS.labels(*key)
        self._series[key].observe(seconds)


def measure_lag(loop: asyncio.AbstractEventLoop) -> None:
    """Observe from now on how late `loop` runs a timer."""

    def observe(due: float) -> None:
        LAG.observe(max(0.0, loop.time() - due))
        schedule()

    def schedule() -> None:
        due = loop.time() + LAG_INTERVAL
        loop.call_at(due, observe, due)

    schedule()


def endpoint(path: str) -> str:
    """Return the endpoint of a path, "other" if it has none."""
    if path.startswith("/messages/") and len(path) > len("/messages/"):
        return MESSAGE
    stripped = path.rstrip("/") or "/"
    return stripped if stripped in ENDPOINTS else "other"
