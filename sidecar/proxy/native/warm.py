"""Warm requests: those that the native engine serves, from their head to their record.

Theory of operation. A gate of the native engine (``sidecar/native``) gets the bytes of a connection that waits for a
request. If the head is certain, what permits it is remembered and still holds, an upstream connection is free and a
record has room, it sends the request; the answer goes back the same way if it is whole and certain. In between it
leaves ghosts where the engine in Python keeps its objects (``ghosts.py``). ``warm_inbound.py`` and ``warm_outbound.py``
have what differs by side.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final

import orjson

from sidecar.errors import SidecarError
from sidecar.observe.access_log import AccessLog
from sidecar.observe.entry import Entry
from sidecar.observe.record import FIELDS, Direction, Record
from sidecar.observe.record_text import MAX_TEXT
from sidecar.observe.tracing import TraceContext
from sidecar.observe.writer import AT_ONCE as AT_ONCE_WRITTEN
from sidecar.proxy.journeys.forward import Forwarder, Forwarding
from sidecar.proxy.journeys.journey import Drive, Journey
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.proxy.native.ghosts import new_entry, new_forwarding, new_stream
from sidecar.wire.h1_client import ClientConnection, State
from sidecar.wire.h1_fields import CONTROLS_MARKED, STATUS_LINES
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.h1_server import ServerConnection, Share
from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Field, Request
from sidecar.wire.teardown import Phase

# The keys of a record that differ by request, in its order. The native engine writes their values.
VARYING: Final = (
    "ts", "seq", "op", "method", "path", "status", "upstream_status", "call_in", "call_out", "request_id", "trace_id",
    "span_id", "bytes_in", "bytes_out", "decide_ms", "upstream_ms", "total_ms", "after_request", "prev",
)  # fmt: skip
_MARK: Final = secrets.token_hex(16)  # stands for their values: nobody can put it into a token
_MAX_STATUS_LINE: Final = 8192
_COUNTED_AT_ONCE: Final = 512  # requests

_log: Final = logging.getLogger("sidecar.native")

if tuple(name for name in FIELDS if name in VARYING) != VARYING:
    raise AssertionError("the varying keys are not in the order of a record")


class Parts:
    """Everything of the engine in Python that a gate touches, by name. The gate reads it once."""

    def __init__(
        self,
        native: ModuleType,
        direction: Direction,
        *,
        snapshots: Snapshots,
        log: AccessLog,
        forwarder: Forwarder,
        wall: Callable[[], float],
        limits: ServerLimits,
        upstream_limits: ClientLimits,
        **of_side: object,
    ) -> None:
        self.direction = direction
        self.snapshots = snapshots
        self.log = log
        self.writer = log.writer
        self.records = log.writer.records
        self.at_once = AT_ONCE_WRITTEN
        self.max_idle = upstream_limits.max_idle
        self.entries = log.young
        self.young = forwarder.watch.young
        self.pools = forwarder.pool.pools
        self.wall = wall
        self.monotonic = log.monotonic
        self.refusal = SidecarError
        self.report = BugReport()
        self.next_trace = None if log.next_trace is None else partial(log.next_trace, direction)
        self.new_stream = new_stream
        self.new_entry = new_entry
        self.new_forwarding = new_forwarding
        self.client = ClientConnection
        self.idle = State.IDLE
        self.asked = State.ASKED
        self.spent = Share.SPENT
        self.open = Phase.OPEN
        self.tally = log.metrics.finished
        self.finished = native.Finished()
        self.count_at = _COUNTED_AT_ONCE
        log.metrics.finished.add_native(direction, self.finished.take)
        self.max_head = min(limits.max_head_bytes, limits.max_target_bytes + 64)
        self.max_target = limits.max_target_bytes
        self.max_fields = limits.max_fields
        self.max_body = limits.max_body_bytes
        self.max_answer_head = min(upstream_limits.max_head_bytes, _MAX_STATUS_LINE)
        self.max_answer_fields = upstream_limits.max_fields
        self.answer_passes = forwarder.answer_edits.passes
        self.status_lines = STATUS_LINES
        self.__dict__.update(of_side)


class BugReport:
    """Logs bugs of the native engine, each kind once: Python serves such requests, so nothing else would show them."""

    def __init__(self) -> None:
        self._logged: set[tuple[type[BaseException], str]] = set()

    def __call__(self, error: BaseException) -> None:
        """Log an error that a gate did not expect."""
        kind = type(error), "".join(traceback.format_tb(error.__traceback__)[-1:])
        if kind not in self._logged:
            self._logged.add(kind)
            _log.error("a bug in the native engine: Python serves such requests", exc_info=error)


def prepare(native: ModuleType, record: Record, fields: Sequence[Field], *, begins: int, ends: int) -> object | None:
    """Make what is the same for requests whose record begins as ``record`` and whose head gets ``fields``.

    It holds from ``begins`` until before ``ends`` (wall seconds). None: the engine in Python serves them all.
    """
    pieces = _pieces_of(record)
    if pieces is None or any(value.translate(CONTROLS_MARKED) != value for _, value in fields):
        return None
    prepared: object = native.Prepared(
        pieces=pieces,
        lines=b"".join([b"%b: %b\r\n" % field for field in fields]),
        begins=begins,
        ends=ends,
        route_name=record["route"],
        depth=record["chain_depth"],
        workload=record["workload"],
    )
    return prepared


def _pieces_of(record: Record) -> list[bytes] | None:
    """Return the text of a record around its varying values; None if it needs more than plain text."""
    try:
        line = orjson.dumps(record | dict.fromkeys(VARYING, _MARK))
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits
        return None
    plain = line.isascii() and b"\\" not in line and b"\x7f" not in line and len(line) <= MAX_TEXT
    pieces = line.split(b'"%b"' % _MARK.encode("ascii"))
    return pieces if plain and len(pieces) == len(VARYING) + 1 else None


def trace_of(traceparent: str, span_id: str) -> TraceContext:
    """Return the context that a request went on with."""
    return TraceContext(traceparent, traceparent[3:35], span_id, None)


def read_again(grammar: RequestGrammar, data: bytes) -> Request:
    """Read the head of a request that the native engine has sent."""
    found = grammar.match(data)
    if found is None:
        raise AssertionError("the native engine took a head that the grammar refuses")
    return grammar.head(found)


def begin_record(entry: Any, log: AccessLog, record: Record, *, started_at: float, forwarded_at: float) -> None:
    """Make the ghost of a record the open record of a request that was forwarded.

    Also where traces are exported: the request has gone on with a context, which the id of its span knows.
    """
    entry.__class__ = Entry
    Entry.__init__(entry, log, record, started_at)
    entry.forwarded_at = forwarded_at


def begin_stream(stream: Any, connection: ServerConnection, head: Request, bytes_in: int) -> None:
    """Make the ghost of a stream the one in progress on its connection."""
    stream.__class__ = H1Stream
    H1Stream.__init__(stream, connection, head, bytes_in)


def wait_for_answer(
    forwarding: Any,
    stream: H1Stream,
    connection: ServerConnection,
    upstream: ClientConnection,
    journey: Journey[None],
    kind: type[Forwarding],
    *arguments: Any,
) -> None:
    """Make the ghost of a forwarding a ``kind``, made with ``arguments``, that waits for its answer.

    It waits as the rest of ``journey``.
    """
    forwarding.__class__ = kind
    kind.__init__(forwarding, *arguments)
    stream.owner = drive = Drive(journey)
    stream.sender = forwarding
    forwarding.sent_on(upstream)
    forwarding.resumed_by(drive)
    drive.begin_waiting()
    if connection.stream is stream:  # else the caller has left, and the upstream will be cut
        upstream.read_early()
