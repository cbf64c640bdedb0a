"""Spans of requests by OpenTelemetry, sent to a collector by OTLP over HTTP.

BentoML's own spans hold URLs with their queries and need the exporters of another version. Ours
hold nothing that a request sent, except its id.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import httpx
from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

SEND_SECONDS = 5.0  # that a collector has to answer
STOP_SECONDS = 1.0  # for the last spans; the server must end
Request = TypeVar("Request", bound=Sized)
Answer = TypeVar("Answer")

_log = logging.getLogger("feedsieve")
_SDK_LOG = logging.getLogger("opentelemetry.sdk._shared_internal")
_steps: ContextVar["list[_Step] | None"] = ContextVar("steps", default=None)


class _Step(NamedTuple):
    """A part of a batch; nanoseconds since 1970."""

    name: str
    start: int
    end: int


class Queued(NamedTuple):
    """A traced request that waits for a batch."""

    name: str
    items: int
    since: int  # nanoseconds since 1970
    parent: Context


class Spans:
    """Makes spans and sends them in a thread; more than it can hold are dropped, with a warning.

    The SDK reads its own variables: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_TRACES_SAMPLER and so on.
    """

    def __init__(self, endpoint: str, headers: str, version: str) -> None:
        """Send to `endpoint`, a URL without /v1/traces, with `headers` such as `name=value`.

        `version` is that of the service.
        """
        own = Resource.create({SERVICE_NAME: "feedsieve", SERVICE_VERSION: version})
        self._provider = TracerProvider(
            resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        exporter = Exporter(endpoint, parse_env_headers(headers, liberal=True))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("feedsieve", version)
        self._propagator = TraceContextTextMapPropagator()
        _SDK_LOG.addFilter(_Once())

    def stop(self) -> None:
        """Send what is left; do not wait longer than `STOP_SECONDS`."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(STOP_SECONDS)

    @contextmanager
    def request(
        self, name: str, attributes: Mapping[str, str], parent: str | None
    ) -> Iterator[Span]:
        """Trace a request during the block. `parent` is the header traceparent, if it has one."""
        carrier = {"traceparent": parent} if parent else {}
        with self._tracer.start_as_current_span(
            name,
            self._propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            attributes,
            record_exception=False,  # its message may quote a text
            set_status_on_exception=False,
        ) as span:
            yield span

    def step(self, name: str) -> AbstractContextManager[object]:
        """Time a step of the batch or the traced request in progress; of others nothing."""
        steps = _steps.get()
        if steps is not None:
            return _timed(name, steps)
        if not get_current_span().is_recording():
            return nullcontext()
        return self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        )

    def queued(self, name: str, request: Sized) -> Queued | None:
        """Note that the request in progress waits for a batch, if it is traced."""
        if not get_current_span().is_recording():
            return None
        return Queued(name, len(request), time.time_ns(), get_current())

    def compute(
        self,
        compute: Callable[[Sequence[Request], Callable[[], object]], Answer],
        traced: Sequence[Queued],
        requests: Sequence[Request],
        let_next: Callable[[], object],
    ) -> Answer:
        """Compute a batch in this thread, and give each traced request spans of its own for it."""
        steps: list[_Step] = []
        token = _steps.set(steps)
        started = time.time_ns()
        try:
            return compute(requests, let_next)
        finally:
            _steps.reset(token)
            ended = time.time_ns()
            size = {"feedsieve.requests": len(requests), "feedsieve.items": sum(map(len, requests))}
            for one in traced:
                waited = {"feedsieve.items": one.items}
                self._write(f"{one.name} queue", one.since, started, one.parent, waited)
                batch = self._write(f"{one.name} batch", started, ended, one.parent, size)
                for step in steps:
                    self._write(step.name, step.start, step.end, batch, {})

    def _write(
        self, name: str, start: int, end: int, parent: Context, attributes: Mapping[str, int]
    ) -> Context:
        """Make a span that has ended; return the context of its children."""
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=start)
        span.end(end)
        return set_span_in_context(span, parent)


class Exporter(SpanExporter):
    """Posts spans to a collector; says once that it is away, and once that it is back.

    OpenTelemetry's own needs its other packages in one version, and logs each failure.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        url = httpx.URL(endpoint)
        self._url = url.copy_with(path=f"{url.path.rstrip('/')}/v1/traces")
        self._shown = str(self._url.copy_with(userinfo=b"", query=None))
        self._client = httpx.Client(timeout=SEND_SECONDS, headers=headers)
        self._is_away = False
        self._dropped = 0  # spans since it is away

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those that are not taken are dropped."""
        body = encode_spans(spans).SerializeToString()
        kind = {"Content-Type": "application/x-protobuf"}
        try:
            self._client.post(self._url, content=body, headers=kind).raise_for_status()
        except httpx.HTTPStatusError as error:
            return self._failed(f"it answers {error.response.status_code}", len(spans))
        except httpx.HTTPError as error:
            return self._failed(str(error) or type(error).__name__, len(spans))
        if self._is_away:
            _log.info("traces are sent again; %d spans were dropped", self._dropped)
            self._is_away, self._dropped = False, 0
        return SpanExportResult.SUCCESS

    def _failed(self, reason: str, spans: int) -> SpanExportResult:
        if not self._is_away:
            _log.warning(
                "no traces are sent to %s: %s; they are dropped until it takes OTLP over HTTP",
                self._shown,
                reason,
            )
        self._is_away = True
        self._dropped += spans
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the connections."""
        self._client.close()


class _Once(logging.Filter):
    """Lets each message of the SDK pass once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        is_new = record.msg not in self._seen
        self._seen.add(record.msg)
        return is_new


@contextmanager
def _timed(name: str, steps: list[_Step]) -> Iterator[None]:
    start = time.time_ns()
    try:
        yield
    finally:
        steps.append(_Step(name, start, time.time_ns()))
