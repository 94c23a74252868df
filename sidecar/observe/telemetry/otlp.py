"""Export to a collector by OTLP over HTTP: the official exporters, each with its own queue and thread.

The library's own log messages may quote what a collector answers, so they are silenced: ``Outlet`` logs in our own
words that a collector accepts nothing.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.trace.export import SpanExportResult

from delegation_core.records.record import Record
from sidecar.observe.metrics import NOTHING_EXPORTED
from sidecar.observe.telemetry.entries import SampledSpanId
from sidecar.observe.telemetry.kept import Kept, kept, record_of
from sidecar.observe.telemetry.logs import log_record
from sidecar.observe.telemetry.outlet import CLOSE_S, Outlet
from sidecar.observe.telemetry.secret_files import read_secret, read_subject_key
from sidecar.observe.telemetry.settings import TracingSettings
from sidecar.observe.telemetry.spans import Spans

_MAX_ANSWER_BYTES: Final = 64 * 1024
_OWN_HEADERS: Final = frozenset({"content-type", "content-encoding", "user-agent"})

_log: Final = logging.getLogger("sidecar.telemetry")


class TelemetryExport:
    """Exports spans of recorded requests, and the records themselves if the settings say so.

    ``servers`` as of ``Spans``.
    """

    def __init__(
        self,
        settings: TracingSettings,
        run: str,
        servers: Callable[[str], tuple[str, int] | None] = lambda _route: None,
    ) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._key_file = settings.subject_key
        self._key = secrets.token_bytes(32) if self._key_file is None else None
        self._spans = Spans(self._subject_key, run, settings.service_name, servers)
        self._span_session = _Session(settings.headers, settings.ca)
        self._span_exporter = OTLPSpanExporter(**_parameters(settings, "traces", self._span_session))
        self._span_outlet = Outlet("spans", self._send_spans, most=settings.queue)
        self._log_session = _Session(settings.headers, settings.ca)
        self._log_exporter: OTLPLogExporter | None = None
        self._log_outlet: Outlet[tuple[Kept, bytes]] | None = None
        if settings.records:
            self._log_exporter = OTLPLogExporter(**_parameters(settings, "logs", self._log_session))
            self._log_outlet = Outlet("records", self._send_records, most=settings.queue)

    def offer(self, records: Sequence[Record], lines: bytes) -> None:
        """Queue spans of recorded requests, and all records if records are exported. Never blocks."""
        pairs = [*zip(records, lines.splitlines(), strict=True)]
        self._span_outlet.offer(
            kept(record, line)
            for record, line in pairs
            if record["event"] == "request" and isinstance(record["span_id"], SampledSpanId)
        )
        if self._log_outlet is not None:
            self._log_outlet.offer((kept(record, line), line) for record, line in pairs)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return spans and records by signal and result. In any thread."""
        counts = dict(NOTHING_EXPORTED)
        outlets: list[tuple[str, Outlet[Any] | None]] = [("spans", self._span_outlet), ("records", self._log_outlet)]
        for signal, outlet in outlets:
            if outlet is not None:
                counts |= {(signal, result): count for result, count in outlet.counts().items()}
        return counts

    def close(self) -> None:
        """Send the queue, for at most ``CLOSE_S``. Blocks."""
        ends_at = time.monotonic() + CLOSE_S
        outlets: list[Outlet[Any]] = [self._span_outlet]
        if self._log_outlet is not None:
            outlets.append(self._log_outlet)
        for outlet in outlets:
            outlet.stop()
        joined = [outlet.join(max(0.0, ends_at - time.monotonic())) for outlet in outlets]
        if not all(joined):
            _log.warning("telemetry is lost: the collector did not accept all of it before the stop")
        self._span_exporter.shutdown()  # type: ignore[no-untyped-call]
        if self._log_exporter is not None:
            self._log_exporter.shutdown()  # type: ignore[no-untyped-call]

    def _subject_key(self) -> bytes:
        """Return the key of the subjects' hashes. Raises OSError while its file cannot be used: then no span leaves."""
        if self._key is None:
            assert self._key_file is not None  # noqa: S101 - for the type only: else there is a key
            self._key = read_subject_key(self._key_file)
        return self._key

    def _send_spans(self, items: Sequence[Kept]) -> bool:
        self._span_session.prepare()
        spans = list(chain.from_iterable(map(self._spans.of, map(record_of, items))))
        return self._span_exporter.export(spans) is SpanExportResult.SUCCESS

    def _send_records(self, items: Sequence[tuple[Kept, bytes]]) -> bool:
        assert self._log_exporter is not None  # noqa: S101 - for the type only: the outlet exists beside it
        self._log_session.prepare()
        records = [(record_of(item), line) for item, line in items]
        logs: list[ReadableLogRecord] = [
            log_record(record, line, self._spans.resource(record["workload"])) for record, line in records
        ]
        return self._log_exporter.export(logs) is LogRecordExportResult.SUCCESS


class _Session(requests.Session):
    """An HTTP session that ignores the environment, adds the configured headers, and limits answers.

    ``ca`` is the file of the CA certificates; None: the public ones.
    """

    def __init__(self, files: Mapping[str, Path], ca: Path | None) -> None:
        super().__init__()
        self.trust_env = False
        self._files = files
        self._ca = ca
        self._values: dict[str, str] = {}

    def prepare(self) -> None:
        """Read the files of the headers again: a renewed token needs no restart. Raises OSError as ``read_secret``."""
        self._values = {name: read_secret(path) for name, path in self._files.items()}
        if self._ca is not None:
            self._ca.open("rb").close()  # the library's error would not name it
        # The exporter sets both from the environment.
        self.verify, self.cert = True if self._ca is None else str(self._ca), None

    def request(self, method: str | bytes, url: str | bytes, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send one request. Raises HTTPError for a redirect, which the exporter would count as success."""
        given = options.pop("headers", None) or {}
        headers = {name: value for name, value in given.items() if name.lower() in _OWN_HEADERS}
        response = super().request(method, url, headers=headers | self._values, stream=True, **options)
        with response:
            response.raw.read(_MAX_ANSWER_BYTES)  # to its end, where it is short: the connection is used again
        if 300 <= response.status_code < 400:
            raise requests.HTTPError("the collector points elsewhere")
        return response


def _parameters(settings: TracingSettings, signal: str, session: _Session) -> dict[str, Any]:
    return {
        "endpoint": f"{settings.endpoint.rstrip('/')}/v1/{signal}",
        "certificate_file": None if settings.ca is None else str(settings.ca),
        "timeout": settings.timeout_s,
        "compression": Compression.Gzip,
        "session": session,
    }
