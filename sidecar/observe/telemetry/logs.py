"""Records as OTLP logs: the body is the record's line, byte for byte, so that ``sidecar audit`` works on it."""

from __future__ import annotations

from typing import Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from delegation_core.records.record import Record
from sidecar import __version__
from sidecar.observe.telemetry.entries import SampledSpanId
from sidecar.observe.telemetry.spans import nanoseconds

_SCOPE: Final = InstrumentationScope("sidecar", __version__)
_NO_SPAN: Final = set_span_in_context(INVALID_SPAN, Context())
_ATTRIBUTES: Final = ("decision", "reason", "direction", "route", "request_id")


def log_record(record: Record, line: bytes, resource: Resource) -> ReadableLogRecord:
    """Make the log of a record. ``line``: the record's line in the sink, free of tokens and control characters."""
    refused = record["decision"] == "deny"
    attributes = {f"delegation.{key}": str(record[key]) for key in _ATTRIBUTES if record[key] is not None}
    return ReadableLogRecord(
        LogRecord(
            timestamp=nanoseconds(record["ts"]),
            context=_context(record["trace_id"], record["span_id"]),
            severity_number=SeverityNumber.WARN if refused else SeverityNumber.INFO,
            severity_text="WARN" if refused else "INFO",
            body=line.decode("utf-8"),
            attributes=attributes,
            event_name=f"delegation.{record['event']}",
        ),
        resource,
        _SCOPE,
    )


def _context(trace_id: str | None, span_id: str | None) -> Context:
    """Return the context of the record's span; empty if it has none."""
    if trace_id is None or span_id is None:
        return _NO_SPAN
    flags = TraceFlags(TraceFlags.SAMPLED if isinstance(span_id, SampledSpanId) else TraceFlags.DEFAULT)
    span = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), _NO_SPAN)
