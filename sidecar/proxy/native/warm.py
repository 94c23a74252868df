"""Warm requests: the native engine serves them, from their head to their record.

Theory of operation. A gate of the native engine (``sidecar/native``) gets the bytes of a connection that waits for a
request. The gate sends the request if its head has the usual form, a cached permit or token still holds, an upstream
connection is free and a record has room. It returns the answer if that is whole and of the usual form. While a request
is in flight, ghosts (``ghosts.py``) take the place of the objects of the engine in Python. ``warm_inbound.py`` and
``warm_outbound.py`` hold the parts that differ by side.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from delegation_core.errors import SidecarError
from delegation_core.records.record import FIELDS, Direction, Record
from delegation_core.records.record_text import MAX_TEXT
from sidecar.engine import require_native
from sidecar.observe.access_log import AccessLog
from sidecar.observe.entry import Entry
from sidecar.observe.tracing import TraceContext
from sidecar.observe.writer import AT_ONCE as AT_ONCE_WRITTEN
from sidecar.proxy.journeys.answers import close
from sidecar.proxy.journeys.forward import Forwarding
from sidecar.proxy.journeys.headers import passes_to_mesh
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Drive, Journey
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.native.ghosts import new_entry, new_forwarding, new_stream
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection, State
from sidecar.wire.h1_fields import CONTROLS_MARKED, STATUS_LINES
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.h1_server import ServerConnection, Share
from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Field, Passes, Request
from sidecar.wire.teardown import Phase

if TYPE_CHECKING:
    from sidecar.proxy.native.warm_operations import HandedOver, WarmMessage

# The keys of a record that differ by request, in its order. The native engine writes their values.
VARYING: Final = (
    "ts", "seq", "op", "method", "path", "status", "upstream_status", "call_in", "call_out", "request_id", "trace_id",
    "span_id", "bytes_in", "bytes_out", "decide_ms", "upstream_ms", "total_ms", "after_request", "prev",
)  # fmt: skip
_MARK: Final = secrets.token_hex(16)  # stands for their values; random, so that no token can contain it
_MAX_STATUS_LINE: Final = 8192
_COUNTED_AT_ONCE: Final = 512  # requests

_log: Final = logging.getLogger("sidecar.native")

if tuple(name for name in FIELDS if name in VARYING) != VARYING:
    raise AssertionError("the varying keys are not in the order of a record")


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
    """Prepare the constant part of requests: their ``record``, and the ``fields`` that are added to their head.

    It holds from ``begins`` until before ``ends`` (wall seconds). None: the record or a field needs escaping, so the
    engine in Python serves all of these requests.
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
    """Return the pieces of a record's JSON between its varying values; None if it is too long or needs escapes."""
    try:
        line = orjson.dumps(record | dict.fromkeys(VARYING, _MARK))
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits
        return None
    plain = line.isascii() and b"\\" not in line and b"\x7f" not in line and len(line) <= MAX_TEXT
    pieces = line.split(b'"%b"' % _MARK.encode("ascii"))
    return pieces if plain and len(pieces) == len(VARYING) + 1 else None


class Connections(NamedTuple):
    """Connections of a request in flight, and the origin of its upstream."""

    caller: ServerConnection
    upstream: ClientConnection
    origin: Origin


class Ghosts(NamedTuple):
    """Ghosts of a request in flight, until they become real."""

    stream: Any
    entry: Any
    forwarding: Any


class Message(NamedTuple):
    """A request as it arrived: its head, and the bytes of all of it.

    ``target``: the target that a next hop gets; None for an agent. ``handle``: the handle of a peer's request.
    ``read``: the message of MCP or A2A; None on other routes.
    """

    data: bytes
    bytes_in: int
    target: bytes | None
    handle: str | None
    read: WarmMessage | None


class Noted(NamedTuple):
    """Notes of a request in flight: monotonic times, the ``traceparent`` that was sent, and ``keys`` of its record."""

    started_at: float
    forwarded_at: float
    traceparent: str
    keys: dict[str, Any]


class Sent(NamedTuple):
    """A request in flight as objects of the engine in Python. ``trace``: the context that was sent with it."""

    stream: H1Stream
    head: Request
    entry: Entry
    origin: Origin
    forwarding: Forwarding
    trace: TraceContext


class InFlight(NamedTuple):
    """A request that the native engine has sent and that is not answered yet. ``given``: its cached permission."""

    given: Any
    connections: Connections
    ghosts: Ghosts
    message: Message
    noted: Noted

    def begin(self, log: AccessLog, grammar: RequestGrammar, record: Record) -> Sent:
        """Make the ghosts of the record and of the stream real. ``record`` holds the facts of the permission.

        The trace context is rebuilt from the ``traceparent`` that was sent, without ``tracestate``.

        Raises:
            AssertionError: the grammar refuses the head, so the native engine should not have sent it.
        """
        (caller, upstream, origin), (stream, entry, forwarding), message, noted = self[1:]
        found = grammar.match(message.data)
        if found is None:
            raise AssertionError("the native engine took a head that the grammar refuses")
        head = grammar.head(found)
        upstream.take_back(head.method)
        entry.__class__ = Entry
        Entry.__init__(entry, log, record | noted.keys, noted.started_at)
        entry.forwarded_at = noted.forwarded_at
        stream.__class__ = H1Stream
        H1Stream.__init__(stream, caller, head, message.bytes_in)
        if message.read is not None:
            entry.operation = message.read.message.key
        trace = TraceContext(noted.traceparent, noted.traceparent[3:35], noted.keys["span_id"], None)
        return Sent(stream, head, entry, origin, forwarding, trace)

    def wait_for_answer(self, journey: Journey[None], kind: type[Forwarding], *arguments: Any) -> None:
        """Turn the ghost of the forwarding into ``kind(*arguments)``, and let ``journey`` wait for its answer."""
        (caller, upstream, _), (stream, _, forwarding) = self.connections, self.ghosts
        forwarding.__class__ = kind
        kind.__init__(forwarding, *arguments)
        stream.owner = drive = Drive(journey)
        stream.sender = forwarding
        forwarding.sent_on(upstream)
        forwarding.resumed_by(drive)
        drive.begin_waiting()
        if caller.stream is stream:  # else the caller has left, and the upstream will be cut
            upstream.read_early()


class WarmSide:
    """One side as its gate sees it: the gate reads the public attributes once, when it is made.

    ``journeys`` serves all requests that the gate does not, and the rest of those that it hands over.

    Raises:
        LookupError: the native engine is not installed.
    """

    def __init__(
        self,
        direction: Direction,
        journeys: Inbound | Outbound,
        *,
        limits: ServerLimits,
        upstream_limits: ClientLimits,
    ) -> None:
        self._native = native = require_native()
        self._grammar = RequestGrammar(
            max_target_bytes=limits.max_target_bytes,
            max_fields=limits.max_fields,
            proxy_form=direction == "outbound",
        )
        log, forwarder = journeys.log, journeys.forwarder
        self.direction = direction
        self.snapshots = journeys.snapshots
        self.handles = journeys.handles
        self.alive = journeys.handles.alive
        self.log = log
        self.writer = log.writer
        self.records = log.writer.records
        self.at_once = AT_ONCE_WRITTEN
        self.max_idle = upstream_limits.max_idle
        self.entries = log.young
        self.young = forwarder.watch.young
        self.pools = forwarder.pool.pools
        self.wall = journeys.clock
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
        self.passes = passes_to_mesh
        self.answer_passes = forwarder.answer_edits.passes
        self.status_lines = STATUS_LINES

    @cached_property
    def _handed_over(self) -> HandedOver:
        from sidecar.proxy.native.warm_operations import HandedOver  # the ``warm`` modules of protocols load it

        return HandedOver()

    def inflate(
        self,
        given: object,
        connections: tuple[ServerConnection, ClientConnection, Origin],
        ghosts: tuple[Any, Any, Any],
        message: tuple[bytes, int, bytes | None, str | None, WarmMessage | None],
        noted: tuple[float, float, str, dict[str, Any]],
    ) -> None:
        """Take over a request in flight, from the plain tuples of the native engine."""
        self._take_over(InFlight(given, Connections(*connections), Ghosts(*ghosts), Message(*message), Noted(*noted)))

    def _take_over(self, flight: InFlight) -> None:
        """Make the ghosts of a request real that was sent and is not answered yet."""
        raise NotImplementedError

    def _rest(
        self,
        sent: Sent,
        *,
        refuse: Callable[[H1Stream, SidecarError, Entry], None],
        note_answer: Callable[[int, Forwarding, Entry], None] | None = None,
        handle: str = "",
    ) -> Journey[None]:
        """Serve the rest of the side's ``journey``, from the wait for its upstream on. ``handle`` ends with it."""
        stream, entry, forwarding = sent.stream, sent.entry, sent.forwarding
        try:
            status = yield forwarding
            if note_answer is not None:
                note_answer(status, forwarding, entry)
        except SidecarError as error:
            refuse(stream, error, entry)
        finally:
            self.handles.end(handle)
            close(stream, entry)

    def kind(
        self,
        *,
        passes: Passes | None = None,
        answer_passes: Passes | None = None,
        new_forwarding: Callable[[], Forwarding] = new_forwarding,
        told: bytes = b"",
        reads_answers: bool = False,
    ) -> object:
        """Return a kind of messages for the native engine. None: the fields that pass on other routes."""
        kind: object = self._native.Kind(
            passes=passes,
            answer_passes=answer_passes,
            new_forwarding=new_forwarding,
            told=told,
            reads_answers=reads_answers,
        )
        return kind
