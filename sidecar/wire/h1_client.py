"""HTTP/1.1 connection to an upstream: one request and its answer at a time; then reuse or close.

The upstream is not trusted: its heads are parsed as strictly as a caller's, bytes after the answer or without a request
close the connection, and a truncated answer is reported as an error, never as an end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import Enum, IntFlag
from typing import TYPE_CHECKING, Final, Protocol, cast

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.framing import MessageWriter
from sidecar.wire.h1_fields import encode_request
from sidecar.wire.h1_reader import AnswerReader
from sidecar.wire.kernel import has_left, unread
from sidecar.wire.lifetimes import Kind, Patience, patience_of, patience_with
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import SUGGESTS_BODY, Response
from sidecar.wire.scheduling import REST_S, Turn
from sidecar.wire.stream import RawSink, ResponseSink
from sidecar.wire.teardown import end_writing
from sidecar.wire.upstream_errors import closed_unanswered

if TYPE_CHECKING:
    from sidecar.wire.websocket import Handshake

if TYPE_CHECKING:
    from sidecar.wire.upstream import Line, RawUpstream, Upstream

_QUIET_S: Final = 0.05  # of silence after an answer that must not have content


class State(Enum):
    """States of an upstream connection, from request to request. An answer may come in any of them but IDLE and QUIET.

        IDLE -> ASKED -> IDLE                                  a request in one write
        IDLE -> ASKING -> SENDING -> ENDING -> ASKED -> IDLE   one with a body that comes later
        ASKED -> QUIET -> IDLE                                 an answer that must have no content, and may have some
        ASKED -> RAW -> CLOSED                                 a switch of protocols
        ASKING to ASKED -> BUFFERED -> CLOSED                  the upstream disconnects before its answer is passed on

    Every state may go to CLOSED: after an answer without keep-alive, a deadline, an error, or a disconnect. A request
    has a sink from ASKING to BUFFERED, and no other state has one.
    """

    IDLE = "idle"  # another request may be sent
    ASKING = "asking"  # a request has begun, none of it is written
    SENDING = "sending"  # a request is written in part
    ENDING = "ending"  # the request is complete, but not fully written
    ASKED = "asked"  # the request is written
    QUIET = "quiet"  # waits for a short silence before the next request
    RAW = "raw"  # both directions are raw bytes
    BUFFERED = "buffered"  # the connection has ended, and the rest of the answer waits for its turns: no more writes
    CLOSED = "closed"


class Pause(IntFlag):
    """Reasons why reading is paused. An idle connection is always read, to notice when the upstream ends it."""

    NOT = 0
    BY_SINK = 1  # the caller has paused the answer
    FOR_TURN = 2  # the buffered answer exceeds one iteration's share


_NOT_PAUSED: Final = Pause.NOT
_IDLE: Final = State.IDLE  # on the warm path
_ASKED: Final = State.ASKED
_CLOSED: Final = State.CLOSED
_ENDED: Final = State.CLOSED, State.BUFFERED
_PARTLY_WRITTEN: Final = State.SENDING, State.ENDING  # tuples: a look-up calls no ``__hash__`` of an enum
_COMPLETE: Final = State.ASKED, State.ENDING


class WarmCall(Protocol):
    """A request that the native engine has sent."""

    def __call__(self, connection: ClientConnection, data: bytes, /) -> bool | None:
        """Try to consume a whole answer. False if refused; None if it waits for the rest."""

    def inflate(self) -> None:
        """Hand the request and the received part of its answer over to the Python engine; no effect if it has ended."""


class ClientConnection(asyncio.Protocol):
    """An upstream connection. Send with ``ask``; or ``start``, ``send_body`` and ``end_body``; ``flush`` each batch.

    The public attributes are those that the native engine reads and writes (``proxy/native/warm.py``).
    ``kept`` and ``writing_paused`` stay flags beside ``state``: the pool and the transport set them in any state.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_connections",
        "_early",
        "_limits",
        "_max_age_s",
        "_on_closed",
        "_on_idle",
        "_opened_at",
        "_out",
        "_quiet_at",
        "ages_at",
        "kept",
        "moved_at",
        "reader",
        "reading_paused",
        "sink",
        "state",
        "transport",
        "warm",
        "writes",
        "writing_paused",
    )
    trailers: Final = ()  # trailers of an answer are dropped

    def __init__(
        self,
        limits: ClientLimits,
        connections: Connections[Line],
        *,
        on_idle: Callable[[ClientConnection], None],
        on_closed: Callable[[ClientConnection], None],
        max_age_s: float,
    ) -> None:
        self.transport: asyncio.Transport
        self.kept = False
        self._limits = limits
        self._connections = connections
        self.writes = connections.writes
        self._clock = connections.clock
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._max_age_s = max_age_s
        self.reader = AnswerReader(limits)
        self.sink: ResponseSink | None = None
        self.warm: WarmCall | None = None  # consumes the answer if it can
        self._early = b""  # the first part of an answer for ``warm``
        self._out = MessageWriter()
        self.state = State.IDLE
        self.writing_paused = False
        self.reading_paused = _NOT_PAUSED
        self._opened_at = 0.0
        self.ages_at = 0.0  # after this time no other request begins
        self._quiet_at = 0.0  # in QUIET: usable again at this time, if no byte arrives before
        self.moved_at = 0.0

    @property
    def usable(self) -> bool:
        """True if another request may be sent now."""
        return self.state is _IDLE and not self.transport.is_closing()

    def first_upstream(self) -> tuple[Line, Upstream]:
        """Return the connection that the pool watches, and the ``Upstream`` of its first request."""
        return self, self

    def live_at_most(self, seconds: float) -> None:
        """Limit the age, in seconds, at which another request may begin; never raises the limit."""
        self.ages_at = min(self.ages_at, self._opened_at + seconds)

    # --- the request

    def ask(
        self,
        method: str,
        target: bytes,
        lines: bytes,
        sink: ResponseSink,
        handshake: Handshake | None = None,
        *,
        body: bytes = b"",
    ) -> None:
        """Send a whole request in one write. ``lines``: its fields, as encoded by ``encode_fields``.

        The length fields are added here. ``handshake``: the request asks to switch protocols.
        """
        if body:
            lines += b"content-length: %d\r\n" % len(body)
        elif method in SUGGESTS_BODY:
            lines += b"content-length: 0\r\n"
        if handshake is not None:
            from sidecar.wire.websocket import SWITCH_LINES

            lines += SWITCH_LINES
        head = encode_request(method, target, lines)
        self._begin(method, sink, handshake)
        self.state = _ASKED
        self.writes.defer(self.transport, head + body)

    def start(self, method: str, target: bytes, lines: bytes, *, length: int | None, sink: ResponseSink) -> None:
        """Begin a request with a body of ``length`` bytes, or a chunked one if None. ``lines`` as for ``ask``."""
        if length is None:
            lines += b"transfer-encoding: chunked\r\n"
        else:
            lines += b"content-length: %d\r\n" % length
        head = encode_request(method, target, lines)
        self._begin(method, sink, None)
        self.state = State.ASKING
        self._out.begin(head, length=length, chunked=length is None)

    def _begin(self, method: str, sink: ResponseSink, handshake: Handshake | None) -> None:
        if self.state is not _IDLE:
            raise RuntimeError("the connection is in use or closed")
        self.reader.expect(method, handshake)
        self.sink = sink
        self.moved_at = self._clock()

    def take_back(self, method: str) -> None:
        """Read the answer to a request that the native engine has sent."""
        self.warm = None
        self.reader.expect(method)

    def _leave_early(self) -> None:
        """Stop waiting for the rest of an answer that the native engine began."""
        if self._early and self.warm is not None:
            self.warm.inflate()

    def read_early(self) -> None:
        """Read the part of the answer left by the native engine; the sink is set now."""
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def send_body(self, data: bytes) -> None:
        """Add content to the request."""
        if self.sink is not None:
            self._out.add(data)

    def end_body(self) -> None:
        """End the request. RuntimeError if it is shorter than its head says."""
        if self.sink is None or self.state not in (State.ASKING, State.SENDING):
            return
        if not self._out.end():
            raise RuntimeError("the request is shorter than its head says")
        self.state = State.ASKED if self.state is State.ASKING else State.ENDING

    def switch_protocols(self, sink: RawSink) -> RawUpstream:
        """Carry raw bytes both ways after a 101, until the connection ends or ``leave``."""
        self.sink = sink
        self.state = State.RAW
        self._out.begin_raw()
        return self

    def send_no_more(self) -> bool:
        """Flush, and half-close the connection if possible (no TLS).

        Returns True if half-closed: then no event loop accepts another write.
        """
        self.flush()
        self.writes.write_all()
        if self.state in _ENDED or not self.transport.can_write_eof():
            return False
        end_writing(self.transport)
        return True

    def leave(self) -> None:
        """Flush and close. No further event is reported; further input is discarded."""
        if self.state in _ENDED:
            self.sink = None  # a reference cycle would keep both until the garbage collector runs
            self.state = _CLOSED
            return
        self.flush()
        self.writes.write_all()
        self.resume_reading()
        self.sink = None
        self.state = _CLOSED
        self.moved_at = self._clock()
        if self.transport.can_write_eof():
            end_writing(self.transport)  # not close: later bytes would be answered with a reset
        else:
            self.transport.close()

    def flush(self) -> None:
        """Write the collected bytes in one write."""
        if not self._out.pieces or self.state in _ENDED:
            return
        self.moved_at = self._clock()
        data = self._out.take()
        if self.state in _PARTLY_WRITTEN and has_left(self.transport):
            self._hear_out()
            return
        self.writes.defer(self.transport, data)
        if self.state is State.ASKING:
            self.state = State.SENDING
        elif self.state is State.ENDING:
            self.state = State.ASKED

    def _hear_out(self) -> None:
        """Stop writing, because the upstream no longer reads. A further write could lose an answer on its way."""
        self.ages_at = self._opened_at  # no other request is sent here
        if self.sink is not None:
            self.sink.on_upstream_pause()

    def abort(self) -> None:
        """Give up the request; no further event is reported. The upstream sees a cut connection."""
        self.sink = None
        self.state = _CLOSED
        self._out.clear()
        self.transport.abort()

    def end_unused(self) -> None:
        """Close if idle; a request in progress becomes the last."""
        if self.usable:
            self.transport.abort()
        else:
            self.ages_at = self._opened_at

    def close(self) -> None:
        """Close an idle connection. No effect if closed already: asyncio's TLS breaks on a second close."""
        if self.state not in _ENDED:
            self.state = _CLOSED
            self.transport.close()

    def pause_reading(self) -> None:
        """Pause reading the answer."""
        self._pause(self.reading_paused | Pause.BY_SINK)

    def resume_reading(self) -> None:
        """Resume reading the answer."""
        if self.reader.rest and self.sink is not None:
            self._wait_for_turn()
        self._pause(self.reading_paused & Pause.FOR_TURN)

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take`` in a later turn, because the work exceeds one iteration's share."""
        self._connections.turns.wait(self._on_closed, take)

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._opened_at = self.moved_at = self._clock()
        self.ages_at = self._opened_at + self._max_age_s

    def data_received(self, data: bytes) -> None:
        """Read more of the answer."""
        warm = self.warm
        if warm is not None:
            self.warm = None
            early, self._early = self._early, b""
            data = early + data
            taken = warm(self, data)
            if taken is None:
                self.warm, self._early, self.moved_at = warm, data, self._clock()
                if not early:
                    asyncio.get_running_loop().call_later(REST_S, warm.inflate)
            if taken is not False:
                return
        sink = self.sink
        if sink is None:
            if self.state is not _CLOSED:  # no request: these bytes could be read as the next request's answer
                self.abort()
            return
        reader = self.reader
        try:
            head, content = reader.feed(data)
        except Denied as error:
            self._fail(Denied(Reason.UPSTREAM_BAD_RESPONSE, error.detail))
            return
        if head is None:
            self._go_on(sink, content)
            sink.on_response_flush()
            if reader.rest:
                self._wait_for_turn()
            return
        self.moved_at = self._clock()
        if reader.complete:
            self._answered(reader, head)
            sink.on_whole_response(head, content)
        else:
            sink.on_response(head, content)
            sink.on_response_flush()
            if reader.rest:
                self._wait_for_turn()

    def eof_received(self) -> None:
        """Handle the upstream's FIN. The transport closes."""
        self._leave_early()
        if self.state is State.RAW:
            self.writes.write_all()  # it may still read; the request may be retried elsewhere if unanswered
        sink = self.sink
        if sink is not None and self.reader.ends_with_connection and _ended_in_order(self.transport):
            self.sink = None
            self.state = _CLOSED
            sink.on_response_end()
        else:
            self._end_of_input()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._leave_early()
        self._connections.discard(self)
        self._end_of_input()
        self._on_closed(self)

    def pause_writing(self) -> None:
        """Pause the source of the request: the write buffer is full."""
        self.writing_paused = True
        self.moved_at = self._clock()
        if self.sink is not None:
            self.sink.on_upstream_pause()

    def resume_writing(self) -> None:
        """Resume the source of the request."""
        self.writing_paused = False
        self.moved_at = self._clock()
        if self.sink is not None:
            self.sink.on_upstream_resume()

    # --- the answer

    def _go_on(self, sink: ResponseSink, content: bytes) -> None:
        """Pass content on, and finish the answer if it is complete. No effect before its head."""
        reader = self.reader
        head = reader.head
        if head is None:
            return
        self.moved_at = self._clock()
        if content:
            sink.on_response_data(content)
        if reader.complete and self.sink is sink:  # otherwise the sink ended the request
            self._answered(reader, head)
            sink.on_response_end()

    def _answered(self, reader: AnswerReader, head: Response) -> None:
        """Reuse or end the connection after a whole answer."""
        self.sink = None
        if self.reading_paused:
            self._pause(_NOT_PAUSED)
        young = self.moved_at < self.ages_at
        if not (head.keep_alive and young and self.state in _COMPLETE) or reader.surplus:
            self.abort()
        elif reader.bodyless:
            self._distrust(reader, head)
        else:
            self.state = _IDLE
            self._on_idle(self)

    def _distrust(self, reader: AnswerReader, head: Response) -> None:
        """Guard against content after an answer that must have none: it could be read as another user's answer.

        After HEAD and 304 the upstream has the content at hand, and some frameworks send it: the connection
        ends. It also ends after a 204 with a Content-Length, whose content may arrive late. After any other 204 the
        mistake is rarer and calls are frequent: a short silence is enough.
        """
        if reader.answers_head or head.status != 204 or head.chunked or head.content_length:
            self.close()
        else:
            self.state = State.QUIET
            self._quiet_at = self.moved_at + _QUIET_S
            asyncio.get_running_loop().call_later(_QUIET_S, self._look_for_silence)

    def _look_for_silence(self) -> None:
        """Return the connection to the pool if nothing arrived; unread bytes in the socket close it."""
        if self.state is not State.QUIET:
            return
        left = self._quiet_at - self._clock()
        if left > 0 or unread(self.transport):
            asyncio.get_running_loop().call_later(max(left, _QUIET_S / 10), self._look_for_silence)
        else:
            self.state = State.IDLE
            self._on_idle(self)

    def _end_of_input(self) -> None:
        """Close after the upstream's end. The answer fails as truncated, unless its rest is buffered."""
        if self.sink is None:
            self.state = _CLOSED
        elif self.reader.rest:
            self.state = State.BUFFERED
            self._hear_out()
        else:
            self._fail(self._cut_short())

    def _wait_for_turn(self) -> None:
        """Queue for a turn: the buffered answer exceeds one iteration's share."""
        if not self.reading_paused & Pause.FOR_TURN:
            self._pause(self.reading_paused | Pause.FOR_TURN)
            self.let_others_first(self._take_turn)

    def _take_turn(self) -> None:
        """Read more of the answer, unless it has ended in the meantime."""
        if self.reading_paused is Pause.FOR_TURN and self.reader.rest and self.sink is not None:
            self.data_received(b"")
            if self.state is State.BUFFERED and not self.reader.rest:
                self._end_of_input()
        if self.reading_paused & Pause.FOR_TURN:
            if self.reader.rest and self.sink is not None and self.reading_paused is Pause.FOR_TURN:
                self.let_others_first(self._take_turn)
            else:
                self._pause(self.reading_paused & Pause.BY_SINK)

    def _pause(self, why: Pause) -> None:
        """Pause or resume reading."""
        before, self.reading_paused = self.reading_paused, why
        if bool(why) is not bool(before) and self.state not in _ENDED:
            if why:
                self.transport.pause_reading()
            else:
                self.moved_at = self._clock()
                self.transport.resume_reading()

    def _cut_short(self) -> SidecarError:
        if self.reader.head is not None:
            return Denied(Reason.UPSTREAM_ABORTED, "the answer ends before its length")
        if self.reader.began:
            return Denied(Reason.UPSTREAM_BAD_RESPONSE, "the answer ends inside its head")
        return closed_unanswered(kept=self.kept)

    def _fail(self, error: SidecarError) -> None:
        sink = self.sink
        self.abort()
        if sink is not None:
            sink.on_response_error(error)

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        silent = now - self.moved_at
        limits, sink, head = self._limits, self.sink, self.reader.head
        if self.state in _ENDED:
            if silent > limits.idle_timeout_s:
                self.transport.abort()
        elif sink is None:
            if silent > limits.idle_keep_s or now > self.ages_at:
                self.close()
        elif silent > limits.least_s:
            raw = self.state is State.RAW
            patience = patience_of(Kind.WEBSOCKET, limits) if raw else patience_with(sink, head, limits)
            self._lose_patience(patience, silent, head)

    def _lose_patience(self, patience: Patience, silent: float, head: Response | None) -> None:
        """End a request after its upstream or its caller was silent for too long."""
        if self.writing_paused:
            if silent > patience.taking_s:
                self._fail(Unavailable(Reason.UPSTREAM_TIMEOUT, "the upstream takes no more of the request"))
        elif head is None:
            if (patience.while_sending or self.state in _COMPLETE) and silent > patience.head_s:
                self._fail(Unavailable(Reason.UPSTREAM_TIMEOUT, "no answer from the upstream"))
        elif not self.reading_paused and silent > patience.answer_s:
            if self.state is State.RAW and isinstance(self.sink, RawSink):
                self.sink.on_silence()
            else:
                self._fail(Unavailable(Reason.UPSTREAM_TIMEOUT, "the upstream's answer stopped coming"))


def _ended_in_order(transport: asyncio.Transport) -> bool:
    """True if an answer that ends with its connection is complete; over TLS only ``close_notify`` proves it.

    Anybody on the path can end a TCP connection (RFC 9112 section 9.8). uvloop then reports no end; asyncio does.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
