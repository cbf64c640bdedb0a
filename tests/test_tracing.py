"""OpenTelemetry: a real server that sends its spans to a receiver of OTLP on loopback."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from live_servers import run_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export import SpanExportResult
from serving import ROOT, Server, free_port, serve, stop, wait_until_ready

from feedsieve import tracing
from feedsieve.api.request_trace import RequestTraceMiddleware
from feedsieve.settings import InvalidSettings, settings
from feedsieve.spans import Exporter, Spans

SECRETS = ("двушка", "moloko", "querysecret", "fs_", "357")


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP, and answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CollectorHandler)
        self.changed = threading.Condition()
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.wait = 0.0  # seconds before an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, of: Callable[[Span], bool]) -> list[Span]:
        """Return all spans of the trace whose root is accepted, the root first."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(map(of, self.spans())), 15), self.spans()
            root = next(filter(of, self.spans()))
            spans = [one for one in self.spans() if one.trace_id == root.trace_id]
        return sorted(spans, key=lambda one: (one is not root, one.start_time_unix_nano))


class _CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.wait)
        with self.server.changed:
            assert self.path == "/v1/traces"
            self.server.headers.append({name.lower(): it for name, it in self.headers.items()})
            if self.server.status == 200:
                self.server.requests.append(ExportTraceServiceRequest.FromString(body))
            self.server.changed.notify_all()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@dataclass
class Traced:
    """A server and the collector that it sends its traces to."""

    server: Server
    collector: Collector

    @property
    def client(self) -> httpx.Client:
        return self.server.client

    def trace(self, identifier: str) -> dict[str, Span]:
        """Return the spans of a request by their names."""
        spans = self.collector.trace(lambda one: attributes(one).get(REQUEST_ID) == identifier)
        return {span.name: span for span in spans}


REQUEST_ID = "feedsieve.request_id"


def attributes(span: Span) -> dict[str, str | int]:
    return {
        one.key: one.value.string_value
        if one.value.HasField("string_value")
        else one.value.int_value
        for one in span.attributes
    }


def sent_by(environment, collector_url, folder):
    own = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector_url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-the-collector",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    return serve(environment | own, folder)


@pytest.fixture(scope="module")
def traced(small_environment, tmp_path_factory) -> Iterator[Traced]:
    collector, folder = Collector(), tmp_path_factory.mktemp("traced")
    with (
        run_server(collector),
        sent_by(small_environment, collector.url, folder) as server,
    ):
        wait_until_ready(server)
        yield Traced(server, collector)


class TestTraces:
    def test_score_has_spans_of_what_takes_the_time(self, traced):
        sent = {"X-Request-ID": "request-1", "User-Agent": "moloko"}
        texts = ["Сдаётся двушка, +357 99 123456", "двушка у моря"]
        path = "/score?q=querysecret"
        answer = traced.client.post(path, json={"texts": texts}, headers=sent)
        assert answer.status_code == 200
        spans = traced.trace("request-1")
        root = spans["POST /score"]
        assert not root.parent_span_id
        assert root.kind == Span.SPAN_KIND_SERVER
        assert attributes(root) == {
            "http.request.method": "POST",
            "http.route": "/score",
            "url.scheme": "http",
            "http.response.status_code": 200,
            REQUEST_ID: "request-1",
        }
        batch = spans["scoring batch"]
        parents = {
            "body": root,
            "scoring queue": root,
            "scoring batch": root,
            "encoder": batch,
            "classifier": batch,
        }
        assert {name: spans[name].parent_span_id for name in parents} == {
            name: parent.span_id for name, parent in parents.items()
        }
        assert attributes(batch) == {"feedsieve.requests": 1, "feedsieve.items": 2}
        for name, parent in parents.items():
            inner = spans[name]
            assert parent.start_time_unix_nano <= inner.start_time_unix_nano
            assert inner.start_time_unix_nano <= inner.end_time_unix_nano
            assert inner.end_time_unix_nano <= parent.end_time_unix_nano
        assert spans["scoring queue"].end_time_unix_nano <= batch.start_time_unix_nano

    def test_other_routes_show_the_store(self, traced):
        get = traced.client.get
        get("/feed?limit=9", headers={"X-Request-ID": "page"})
        assert traced.trace("page").keys() == {"GET /feed", "store", "page"}
        message = {"source": "moloko", "id": "+35799123456", "text": "Сдаётся двушка"}
        traced.client.post("/messages", json=message, headers={"X-Request-ID": "new"})
        stored = traced.trace("new")
        assert stored["store"].parent_span_id == stored["writing batch"].span_id
        assert "scoring batch" in stored
        assert get("/messages/%2B35799123456", headers={"X-Request-ID": "one"}).status_code == 200
        found = traced.trace("one")
        assert found["store"].parent_span_id == found["reading batch"].span_id
        assert "GET /messages/{identifier}" in found

    def test_requests_of_one_batch_have_traces_of_their_own(self, traced):
        with httpx.Client(base_url=traced.server.url, timeout=60) as other:
            body = {"texts": ["двушка " * 40 + str(number) for number in range(64)]}
            clients = [
                threading.Thread(
                    target=client.post,
                    args=("/score",),
                    kwargs={"json": body, "headers": {"X-Request-ID": f"together-{number}"}},
                )
                for number, client in enumerate((traced.client, other))
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        for number in range(2):
            assert "encoder" in traced.trace(f"together-{number}")

    def test_trace_of_the_caller_goes_on(self, traced):
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        sent = {"traceparent": f"00-{trace}-{span}-01", "X-Request-ID": "called"}
        traced.client.get("/version", headers=sent)
        root = traced.trace("called")["GET /version"]
        assert (root.trace_id.hex(), root.parent_span_id.hex()) == (trace, span)

    def test_error_of_a_client_is_none_of_the_server(self, traced):
        traced.client.post("/score", json={"texts": 1}, headers={"X-Request-ID": "bad"})
        [bad] = [one for name, one in traced.trace("bad").items() if name == "POST /score"]
        assert attributes(bad)["http.response.status_code"] == 400
        assert bad.status.code == Status.STATUS_CODE_UNSET  # an error of the client's

    def test_probes_and_metrics_are_not_traced(self, traced):
        for path in ("/livez", "/readyz", "/metrics"):
            traced.client.get(path)
        traced.client.get("/docs", headers={"X-Request-ID": "last"})
        traced.trace("last")
        roots = {span.name for span in traced.collector.spans() if not span.parent_span_id}
        assert roots <= {
            f"{method} {route}"
            for method, route in [
                ("POST", "/score"),
                ("POST", "/messages"),
                ("GET", "/feed"),
                ("GET", "/messages/{identifier}"),
                ("GET", "/docs"),
            ]
        }

    def test_nothing_that_requests_sent_is_in_a_span(self, traced):
        requests = traced.collector.requests
        assert "scoring batch" in str(requests)
        everything = b"".join(one.SerializeToString() for one in requests).decode(
            "utf-8", "replace"
        )
        assert [secret for secret in SECRETS if secret in everything] == []

    def test_resource_and_headers_are_those_of_the_environment(self, traced):
        described = traced.collector.requests[0].resource_spans[0].resource
        about = attributes(described)
        assert about["service.name"] == "feedsieve"
        assert about["deployment.environment"] == "test"
        assert traced.collector.headers[0]["authorization"] == "Bearer of-the-collector"

    def test_collector_that_fails_is_named_once(self, traced):
        """The last one: it stops the server."""
        collector, client = traced.collector, traced.client
        collector.status = 503
        seen = len(collector.headers)
        for number in range(3):
            assert client.post("/score", json={"texts": [f"x{number}"]}).status_code == 200
            with collector.changed:
                assert collector.changed.wait_for(lambda: len(collector.headers) > seen, 10)  # noqa: B023
                seen = len(collector.headers)
        collector.status = 200
        client.get("/version", headers={"X-Request-ID": "back"})
        traced.trace("back")
        collector.wait = 30.0  # it answers no more
        client.get("/version")
        time.sleep(0.3)
        started = time.monotonic()
        stop(traced.server.process)
        assert time.monotonic() - started < 6
        assert traced.server.process.returncode == 0
        log = traced.server.log.read_text()
        assert log.count("no traces are sent to http://127.0.0.1:") == 1, log
        assert log.count("traces are sent again; ") == 1
        assert "HTTP Request" not in log
        assert "of-the-collector" not in log


def test_absent_collector_is_named_once_without_its_password(caplog):
    exporter = Exporter(f"http://name:password@127.0.0.1:{free_port()}/otlp?token=x", {})
    with caplog.at_level("INFO", "feedsieve"):
        for _ in range(3):
            assert exporter.export([]) is SpanExportResult.FAILURE
    exporter.shutdown()
    [line] = [one.getMessage() for one in caplog.records if one.name == "feedsieve"]
    assert "/otlp/v1/traces: " in line
    assert "password" not in line
    assert "token" not in line


def test_error_of_the_server_is_marked(monkeypatch):
    async def unavailable(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return {"type": "http.disconnect"}

    async def send(_message):
        pass

    collector = Collector()
    with run_server(collector):
        monkeypatch.setattr(tracing, "_spans", Spans(collector.url, "", "1"))
        scope = {"type": "http", "method": "BREW", "path": "/x", "scheme": "http", "headers": []}
        asyncio.run(RequestTraceMiddleware(unavailable)(scope, receive, send))
        tracing.stop()
        [span] = collector.spans()
    assert span.name == "_OTHER other"
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "503"


def test_exporter_is_not_imported_while_traces_are_off():
    program = (
        "import sys\n"
        "from feedsieve import tracing\n"
        "from feedsieve.settings import settings\n"
        "tracing.install(settings(), '1')\n"
        "assert tracing.spans() is None\n"
        "print([name for name in sys.modules if 'exporter' in name or name == 'feedsieve.spans'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_nothing_is_made_while_traces_are_off():
    assert tracing.span("x") is tracing.span("y")
    assert tracing.queued("x", []) is None

    def compute(_requests, _let_next):
        return None

    assert tracing.with_spans(compute, [None]) is compute


def test_address_without_a_scheme_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    settings.cache_clear()
    with pytest.raises(InvalidSettings, match="^OTEL_EXPORTER_OTLP_ENDPOINT: "):
        settings()
    settings.cache_clear()
