"""Prometheus metrics at `/metrics`; their number of series is bounded.

BentoML's own have one series for each path, so for each message, and take longer than all other
work for a small request.
"""

import time
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.scoring.backend_selection import Selection

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
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
BACKEND = Info("feedsieve_backend", "The backend of the encoder, and how it was chosen")
STORE_READABLE = Gauge("feedsieve_store_readable", "1 if the message store can be read, else 0")
STORE_WRITABLE = Gauge("feedsieve_store_writable", "1 if the message store can be written, else 0")
BACKLOG = Gauge("feedsieve_backlog_texts", "Stored texts without a score by the served model")
NEWEST = Gauge(
    "feedsieve_newest_message_timestamp_seconds",
    "Seconds since 1970 at which the newest message was stored",
)
for gauge in (BACKLOG, NEWEST):
    gauge.set(float("nan"))  # not known yet
WATCHED = Counter(
    "feedsieve_watched_messages", "Messages of live sources that were stored", ["source", "change"]
)
WATCH_FAILURES = Counter("feedsieve_watch_failures", "Failures of live sources", ["source"])
WATCH_SUCCESS = Gauge(
    "feedsieve_watch_last_success_timestamp_seconds",
    "Seconds since 1970 at which a live source last answered",
    ["source"],
)
_SECONDS = Histogram(
    "feedsieve_request_seconds",
    "Seconds from a request to the end of its answer",
    ["endpoint", "status"],
    buckets=SECONDS,
)


def show_backend(model: str, selection: Selection) -> None:
    """Set the labels of the info metric: the served model, its backend, and rejected ones."""
    labels = {
        name: "" if value is None else str(value) for name, value in selection.figures().items()
    }
    rejected = "; ".join(f"{name}: {why}" for name, why in selection.passed_over.items())
    BACKEND.info({"model": model, **labels, "passed_over": rejected})


def show_newest(time: datetime | None) -> None:
    """Set the time at which the newest message was stored."""
    NEWEST.set(time.timestamp() if time else float("nan"))


def show() -> Response:
    """Return all metrics of this process in Prometheus' format."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class MetricsMiddleware:
    """Measures the duration of requests by endpoint and status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._series: dict[tuple[str, int], Histogram] = {}  # looking one up by its labels is slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # the client disconnected

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            key = endpoint(scope["path"].removeprefix(scope.get("root_path", ""))), status
            if key not in self._series:
                self._series[key] = _SECONDS.labels(*key)
            self._series[key].observe(time.perf_counter() - started)


def endpoint(path: str) -> str:
    """Return the endpoint of a path, "other" if it has none."""
    if path.startswith("/messages/") and len(path) > len("/messages/"):
        return MESSAGE
    stripped = path.rstrip("/") or "/"
    return stripped if stripped in ENDPOINTS else "other"
