"""Contexts of traced requests: who is the parent, what is recorded, and what strangers cannot decide."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from delegation_core.records.record import Direction
from delegation_core.records.record_text import encode
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.observe.telemetry.entries import MAX_CALLS, SampledSpanId, TracedEntry, TracedUnprovenEntry, Traces
from sidecar.observe.tracing import Parent
from tests.fakes.sink import FakeSink
from tests.observe.test_tracing import GOOD, PARENT, TRACE

UNSAMPLED = GOOD[:-2] + b"00"


def head(*parents: bytes) -> Any:
    return SimpleNamespace(all=lambda name: list(parents) if name == b"traceparent" else [])


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_a_caller_that_records_its_span_is_the_parent(direction: Direction) -> None:
    context = Traces(0.0).continued(direction, None, [GOOD], [b"a=1"])
    assert (context.trace_id, context.tracestate) == (TRACE, "a=1")
    assert context.traceparent == f"00-{TRACE}-{context.span_id}-01"
    assert isinstance(context.span_id, SampledSpanId)
    assert (context.span_id.parent, context.span_id.link) == (PARENT, None)


def test_a_caller_that_does_not_is_continued_and_not_recorded() -> None:
    context = Traces(1.0).continued("inbound", None, [UNSAMPLED], [])
    assert context.traceparent == f"00-{TRACE}-{context.span_id}-00"
    assert not isinstance(context.span_id, SampledSpanId)


@pytest.mark.parametrize("parents", [[], [GOOD, GOOD], [b"00-" + b"0" * 32 + GOOD[35:]], [b"\xff"]])
def test_without_one_valid_parent_a_trace_begins(parents: list[bytes]) -> None:
    context = Traces(1.0).continued("inbound", None, parents, [b"a=1"])
    assert context.trace_id != TRACE
    assert context.tracestate is None
    assert isinstance(context.span_id, SampledSpanId)
    assert context.span_id.parent is None
    assert context.traceparent.endswith("-03")


def test_of_new_traces_the_share_is_recorded_that_the_official_sampler_records() -> None:
    from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

    traces, official = Traces(0.25), TraceIdRatioBased(0.25)
    recorded = 0
    for _ in range(2000):
        context = traces.begun(None)
        sampled = isinstance(context.span_id, SampledSpanId)
        decision = official.should_sample(None, int(context.trace_id, 16), "x").decision
        assert sampled == (decision is Decision.RECORD_AND_SAMPLE)
        assert context.traceparent.endswith("-03" if sampled else "-02")
        recorded += sampled
    assert 400 < recorded < 600


def test_a_call_without_traceparent_continues_the_request_that_it_is_made_for() -> None:
    traces = Traces(1.0)
    request = traces.continued("inbound", "c1", [GOOD], [])
    call = traces.continued("outbound", "c1", [], [])
    assert call.trace_id == TRACE
    assert isinstance(call.span_id, SampledSpanId)
    assert call.span_id.parent == request.span_id
    other = traces.continued("outbound", "c2", [], [])
    assert other.trace_id != TRACE
    own = traces.continued("outbound", None, [], [])
    assert own.trace_id != TRACE


def test_a_call_for_a_request_that_is_not_recorded_is_not_recorded() -> None:
    traces = Traces(1.0)
    traces.continued("inbound", "c1", [UNSAMPLED], [])
    call = traces.continued("outbound", "c1", [], [])
    assert call.traceparent.endswith("-00")
    assert not isinstance(call.span_id, SampledSpanId)


def test_only_the_requests_of_late_are_remembered() -> None:
    traces = Traces(1.0)
    for number in range(MAX_CALLS + 1):
        traces.continued("inbound", f"c{number}", [GOOD], [])
    assert traces.continued("outbound", "c0", [], []).trace_id != TRACE
    assert traces.continued("outbound", "c1", [], []).trace_id == TRACE
    assert len(traces._calls) == MAX_CALLS


def test_a_span_id_is_an_ordinary_text_in_a_record() -> None:
    span_id = SampledSpanId("00f067aa0ba902b7", "aa", Parent("t", "s", "01"))
    assert orjson.dumps({"span_id": span_id}) == b'{"span_id":"00f067aa0ba902b7"}'
    assert str(span_id) == "00f067aa0ba902b7"
    record = {"span_id": span_id, "path": "/\x07", "decision": "allow"}
    assert b'"span_id":"00f067aa0ba902b7"' in encode([record])[0]
    assert pickle.dumps(str(span_id)) == pickle.dumps("00f067aa0ba902b7")


def log(traces: Traces) -> AccessLog:
    return AccessLog(
        FakeSink(),
        run="r1",
        metrics=Metrics(),
        entry=lambda *of: TracedEntry(traces, *of),
        unproven_entry=lambda *of: TracedUnprovenEntry(traces, *of),
    )


async def test_a_request_that_is_refused_has_a_span_below_its_callers() -> None:
    stream = log(Traces(1.0))
    entry = stream.reserve("inbound")
    entry.close(head(GOOD))
    assert entry.trace_id == TRACE
    assert isinstance(entry.span_id, SampledSpanId)
    assert entry.span_id.parent == PARENT
    unread = stream.reserve("inbound")
    unread.close(None)
    assert unread.span_id is None
    await stream.close()


async def test_a_stranger_continues_no_trace_and_decides_nothing() -> None:
    stream = log(Traces(0.0))
    rate = UnprovenRecords(stream, RecordRate())
    entry = stream.reserve("outbound", rate)
    entry.close(head(GOOD))
    assert entry.trace_id != TRACE
    assert not isinstance(entry.span_id, SampledSpanId)
    await stream.close()
    stream = log(Traces(1.0))
    served = stream.reserve("outbound", UnprovenRecords(stream, RecordRate()))
    context = served.next_trace([GOOD], [b"a=1"])
    assert context.trace_id != TRACE
    assert context.tracestate is None
    assert isinstance(context.span_id, SampledSpanId)
    assert context.span_id.parent is None
    assert context.span_id.link == Parent(TRACE, PARENT, "01")
    await stream.close()
