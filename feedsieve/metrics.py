"""What Prometheus reads at `/metrics`: series whose number does not grow with what is asked for.

BentoML's own have the path as a label, one series for each message that was looked at, and take
more time than all else that a small request needs.
"""

import time

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, Info, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedsieve.backend_selection import Selection, figures

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

RECALLED = Counter("feedsieve_texts_recalled", "Texts in requests whose score was known already")
BY_WORDS = Counter("feedsieve_texts_by_words", "Texts in requests whose words alone gave a score")
EMBEDDED = Counter("feedsieve_texts_embedded", "Texts that the encoder read for requests")
BATCH = Histogram("feedsieve_batch_texts", "Texts that were scored together", buckets=TEXTS)
BACKEND = Info("feedsieve_backend", "The backend of the encoder, and how it was chosen")
_SECONDS = Histogram(
    "feedsieve_request_seconds",
    "From a request to the end of its answer",
    ["endpoint", "status"],
    buckets=SECONDS,
)


def show_backend(model: str, selection: Selection) -> None:
    """Set the labels of the info metric: the served model, its backend, and the refused ones."""
    found = figures(selection)
    refused = "; ".join(f"{name}: {why}" for name, why in selection.passed_over.items())
    texts = {name: "" if value is None else str(value) for name, value in found.items()}
    BACKEND.info({"model": model, **texts, "passed_over": refused})


def show() -> Response:
    """Return every metric of this process in Prometheus' format."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class MetricsMiddleware:
    """Counts requests and the time they take, by endpoint and status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._series: dict[tuple[str, int], Histogram] = {}  # finding one by labels is slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # nobody was there any more to be answered

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            key = endpoint(scope["path"]), status
            if key not in self._series:
                self._series[key] = _SECONDS.labels(*key)
            self._series[key].observe(time.perf_counter() - started)


def endpoint(path: str) -> str:
    """Return which of a few endpoints a path leads to, "other" for none."""
    if path.startswith("/messages/") and len(path) > len("/messages/"):
        return MESSAGE
    known = path.rstrip("/") or "/"
    return known if known in ENDPOINTS else "other"
