"""Entries of requests whose traces are exported: the parent of each span, and the decision to record it.

A caller with a proven identity decides by the ``sampled`` flag if its trace is recorded. Of traces that begin here, a
configured share is recorded. A caller without a proven identity gets a new trace with a link to its own span: it
neither joins a trace of the mesh nor decides on recording.

An agent that forwards ``traceparent`` is the parent of its calls. Otherwise the inbound request named by the handle is
the parent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from delegation_core.records.record import Direction, Record
from sidecar.observe.entry import Entry, EntryLog, Head, UnprovenEntry
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.tracing import Parent, TraceContext, new_id, new_span_id, parent_of, state_of

MAX_CALLS: Final = 4096  # requests whose context is remembered for the calls of their agent
_SAMPLED: Final = "03"  # and its id is random
_UNSAMPLED: Final = "02"
_LOW_DIGITS: Final = 16  # of a trace id: the low 64 bits decide, as in the SDK's TraceIdRatioBased


class SampledSpanId(str):
    """The id of a span that is recorded. In a record it is an ordinary text."""

    __slots__ = ("link", "parent")

    parent: str | None  # None: the trace begins here
    link: Parent | None  # a caller's span that is not the parent

    def __new__(cls, span_id: str, parent: str | None, link: Parent | None) -> SampledSpanId:
        """Make the id of a span."""
        made = super().__new__(cls, span_id)
        made.parent, made.link = parent, link
        return made


class Traces:
    """Decides on the traces of one process. ``ratio``: the share of traces begun here that is recorded."""

    def __init__(self, ratio: float) -> None:
        self._below = round(ratio * (1 << 64))
        self._calls: OrderedDict[str, Parent] = OrderedDict()  # by call id: the inbound requests of late

    def continued(
        self, direction: Direction, call_in: str | None, parents: Sequence[bytes], states: Sequence[bytes]
    ) -> TraceContext:
        """Return the context of a request of a proven caller, or of the agent."""
        parent, state = parent_of(parents), None
        if parent is not None:
            state = state_of(states) if states else None
        elif direction == "outbound":
            parent = self._calls.get(call_in or "")
        context = self.begun(None) if parent is None else _context(parent, parent.span_id, None, state)
        if direction == "inbound" and call_in is not None:
            self._remember(call_in, context)
        return context

    def begun(self, link: Parent | None) -> TraceContext:
        """Begin a trace. ``link`` is a caller's span to refer to."""
        trace_id = new_id()
        sampled = int(trace_id[_LOW_DIGITS:], 16) < self._below
        return _context(Parent(trace_id, "", _SAMPLED if sampled else _UNSAMPLED), None, link, None)

    def _remember(self, call: str, context: TraceContext) -> None:
        """Remember the context of an inbound request, so that the calls made for it continue its trace."""
        self._calls[call] = Parent(context.trace_id, context.span_id, context.traceparent[-2:])
        self._calls.move_to_end(call)
        if len(self._calls) > MAX_CALLS:
            self._calls.popitem(last=False)


class TracedEntry(Entry):
    """The entry of a request of a proven caller, or of the agent."""

    __slots__ = ("_traces",)

    def __init__(self, traces: Traces, log: EntryLog, record: Record, started_at: float) -> None:
        super().__init__(log, record, started_at)
        self._traces = traces

    def next_trace(self, parents: Sequence[bytes], states: Sequence[bytes]) -> TraceContext:
        """Return the context to send on."""
        return self._traces.continued(self.direction, self.call_in, parents, states)

    def close(self, head: Head | None = None) -> None:
        """Write the record. If the request was forwarded without a trace context, make its span now."""
        if self.span_id is None and head is not None:
            _, self.trace_id, self.span_id, _ = self.next_trace(head.all(b"traceparent"), head.all(b"tracestate"))
        super().close(head)


class TracedUnprovenEntry(UnprovenEntry):
    """The entry of a request whose caller proved no identity."""

    __slots__ = ("_traces",)

    def __init__(
        self, traces: Traces, log: EntryLog, record: Record, started_at: float, unproven: UnprovenRecords
    ) -> None:
        super().__init__(log, record, started_at, unproven)
        self._traces = traces

    def next_trace(self, parents: Sequence[bytes], _states: Sequence[bytes]) -> TraceContext:
        """Begin a trace, with a link to the caller's."""
        return self._traces.begun(parent_of(parents))

    def close(self, head: Head | None = None) -> None:
        """Write the record, as ``TracedEntry.close``."""
        if self.span_id is None and head is not None:
            _, self.trace_id, self.span_id, _ = self.next_trace(head.all(b"traceparent"), ())
        super().close(head)


def _context(trace: Parent, parent: str | None, link: Parent | None, state: str | None) -> TraceContext:
    """Make the context under a new span id; if the trace is recorded, the id knows its parent."""
    span_id = new_span_id()
    traceparent = f"00-{trace.trace_id}-{span_id}-{trace.flags}"
    if trace.sampled:
        span_id = SampledSpanId(span_id, parent, link)
    return TraceContext(traceparent, trace.trace_id, span_id, state)
