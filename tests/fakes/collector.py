"""An OTLP receiver on loopback: decodes what a sidecar sends, or refuses it, or does not answer."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as a collector sees it; ids in hex, an empty parent for a root."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    begins_at: int
    ends_at: int
    error: bool
    attributes: Attributes
    resource: Attributes
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Log:
    """A log record as a collector sees it."""

    event: str
    body: str
    severity: str
    trace_id: str
    span_id: str
    at: int
    attributes: Attributes


@dataclass(slots=True)
class Collector:
    """Holds the requests that arrived. ``status`` is the answer; None: it hangs until the end."""

    port: int = 0
    status: int | None = 200
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        return [span for path, _, body in list(self.requests) if path == "/v1/traces" for span in _spans(body)]

    @property
    def logs(self) -> list[Log]:
        return [log for path, _, body in list(self.requests) if path == "/v1/logs" for log in _logs(body)]

    @property
    def everything(self) -> bytes:
        return b"".join(body for _, _, body in self.requests)

    def wait_for(self, what: Callable[[], bool], timeout_s: float = 10.0) -> None:
        ends_at = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < ends_at, f"only {[span.name for span in self.spans]}"
            time.sleep(0.02)


@contextmanager
def open_collector(port: int = 0) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = collector.status
            if status is None:
                collector.released.wait(30)
                self.close_connection = True
                return
            if status == 200:
                fields = {name.lower(): value for name, value in self.headers.items()}
                collector.requests.append((self.path, fields, body))
            self.send_response(status, "REASON-OF-COLLECTOR")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    begins_at=span.start_time_unix_nano,
                    ends_at=span.end_time_unix_nano,
                    error=span.status.code == 2,
                    attributes=_attributes(span.attributes),
                    resource=_attributes(resource.resource.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                )


def _logs(body: bytes) -> Iterator[Log]:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for log in scope.log_records:
                yield Log(
                    event=log.event_name,
                    body=log.body.string_value,
                    severity=log.severity_text,
                    trace_id=log.trace_id.hex(),
                    span_id=log.span_id.hex(),
                    at=log.time_unix_nano,
                    attributes=_attributes(log.attributes),
                )


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
