"""Traces of requests: what a request waited for, and how long; off unless a setting says where to.

While they are off, OpenTelemetry's exporter is not imported and a span costs one function call.
"""

from collections.abc import Callable, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from feedsieve.settings import Settings

if TYPE_CHECKING:
    from feedsieve.spans import Queued, Spans

Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")
Compute = Callable[[Sequence[Request], Callable[[], object]], Answer]

_spans: "Spans | None" = None
_OFF: AbstractContextManager[object] = nullcontext()


def install(settings: Settings, version: str) -> None:
    """Send traces of this version from now on, if the settings name a collector."""
    global _spans
    if settings.traces:
        from feedsieve.spans import Spans  # which imports OpenTelemetry's exporter

        headers = settings.traces_headers
        _spans = Spans(settings.traces, headers.get_secret_value() if headers else "", version)


def stop() -> None:
    """Send what is left, within a second, and no traces from now on."""
    global _spans
    if _spans:
        _spans.stop()
    _spans = None


def spans() -> "Spans | None":
    """Return what makes the spans of requests, or None while traces are off."""
    return _spans


def span(name: str) -> AbstractContextManager[object]:
    """Time a step of the traced request, or of the batch that has traced requests."""
    return _spans.step(name) if _spans else _OFF


def queued(name: str, request: Sized) -> "Queued | None":
    """Note that a traced request waits from now on for a batch called `name`."""
    return _spans.queued(name, request) if _spans else None


def with_spans(
    compute: Compute[Request, Answer], waiting: "Sequence[Queued | None]"
) -> Compute[Request, Answer]:
    """Return `compute` of a batch, which gives each traced request its wait and the batch."""
    traced = [one for one in waiting if one]
    return partial(_spans.compute, compute, traced) if _spans and traced else compute
