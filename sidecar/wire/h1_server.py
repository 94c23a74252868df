"""HTTP/1.1 server connections: requests in, answers out, limits and deadlines.

Usage: a listener makes ``ServerConnection(handler, limits, connections)`` per accepted socket, ``connections`` being
one ``Connections`` registry per listener. For each request ``handler.on_request(stream)`` is called inside
``data_received`` with a whole valid head, one at a time and in order; the handler answers through the stream, now or
later, by ``answer(...)`` or ``send_head, send_data …, send_end``. ``handler.on_refused(stream, error)`` is called
instead for an unusable request; it must ``answer()``, or only write its record when ``stream.gone``. Pipelined
requests wait until the answer before them has ended. Requests cost no task, future or timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final, cast

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.framing import MessageWriter
from sidecar.wire.h1_body import Intake
from sidecar.wire.h1_reader import RequestReader
from sidecar.wire.h1_stream import H1Stream
from sidecar.wire.kernel import has_left, queued, unread
from sidecar.wire.lifetimes import RULES
from sidecar.wire.limits import ServerLimits
from sidecar.wire.scheduling import REST_S, Turn
from sidecar.wire.stream import RequestHandler
from sidecar.wire.teardown import MANY_WAIT, WAITS_S, Pace, Phase, Teardown

_MAY_WAIT: Final = 16 * 1024  # bytes buffered while a request is served: reading goes on to notice the peer's end


class Share(Enum):
    """Share of a connection in fair queueing: the permitted use of its buffered input."""

    SPENT = "spent"  # the next request in it waits for a turn
    GRANTED = "granted"  # a request may be read now
    QUEUED = "queued"  # waiting for its turn
    LENT = "lent"  # the sink of raw bytes waits for a turn


_SPENT: Final = Share.SPENT  # on the warm path
_OPEN: Final = Phase.OPEN
_LINGERING: Final = Phase.LINGERING


Warm = Callable[["ServerConnection", bytes], bool | None]
"""Takes a request that the native engine serves. False: another one, and nothing has changed. None: it may be one when
the rest of its body has come."""


class ServerConnection(asyncio.Protocol):
    """One accepted connection; plain or TLS, on any event loop.

    The stream and the native engine (``proxy/native/warm.py``) use the public attributes. ``stream`` is the request in
    progress, ``rest`` the buffered input.
    """

    __slots__ = (
        "__weakref__",
        "_advancing",
        "_body_pace",
        "_clock",
        "_early",
        "_early_at",
        "_half_closes",
        "_head_began_at",
        "_limits",
        "_opened_at",
        "_read_at",
        "_reader",
        "_warm",
        "ages_at",
        "connections",
        "handler",
        "moved_at",
        "out",
        "reading_paused",
        "rest",
        "share",
        "stream",
        "teardown",
        "transport",
        "warm_peer",
        "writes",
        "writing_paused",
    )

    def __init__(
        self,
        handler: RequestHandler,
        limits: ServerLimits,
        connections: Connections[Any],
        *,
        proxy_form: bool = False,
        warm: Warm | None = None,
    ) -> None:
        self.transport: asyncio.Transport
        self.writing_paused = False
        self.handler = handler
        self.writes = connections.writes
        self.out = MessageWriter()  # of the stream in progress
        self.warm_peer: object = None  # kept here by the native engine
        self._warm = warm
        self._limits = limits
        self.connections = connections
        self._clock = connections.clock
        self._reader = RequestReader(limits, proxy_form=proxy_form)
        self.rest = b""
        self._early = b""  # the first part of a request that the native engine will consume when complete
        self._early_at = 0.0
        self.stream: H1Stream | None = None
        self._advancing = False  # input is being processed: nested calls do nothing
        self.share = Share.SPENT
        self.reading_paused = False
        self._half_closes = False  # True without TLS
        self._opened_at = 0.0
        self.ages_at = 0.0
        self.moved_at = 0.0
        self._read_at = 0.0
        self._head_began_at = 0.0
        self._body_pace = Pace()
        self.teardown = Teardown(limits, connections.clock)

    @property
    def receiving(self) -> bool:
        """True if a head has begun to arrive."""
        return self._reader.held > 0 or bool(self._early)

    def hand_over(self, handler: RequestHandler) -> None:
        """Replace the handler of later requests. The native engine serves the first handler's requests only."""
        self._read_early()
        self.handler = handler
        self._warm = None

    def stop(self, error: SidecarError) -> None:
        """End the request in progress, or refuse the one whose head is arriving, for ``error``; then close."""
        self._read_early()
        if self.stream is not None:
            self.stream.stop(error)
        elif self._reader.first_line_read:
            self._refuse(error)
        self.finish()

    @property
    def waits_since(self) -> float | None:
        """Start of the current wait for a head, or for the peer to stop (monotonic seconds).

        None if a request is in progress, or the connection is closed.
        """
        if self.stream is not None or self.teardown.phase is Phase.CLOSING:
            return None
        if self.teardown.linger is not None:
            return self.teardown.linger.began_at
        return self._head_began_at if self._reader.held else self.moved_at

    @property
    def behind_since(self) -> float | None:
        """Start of the period in which the peer reads almost nothing (monotonic seconds); None if it keeps up."""
        return self.teardown.behind_since if self.writing_paused or self.teardown.phase is Phase.CLOSING else None

    @property
    def kept(self) -> bool:
        """True if it is idle, waiting for the first byte of another request."""
        return not self.receiving and self.teardown.linger is None and self.moved_at != self._opened_at

    def give_way(self, error: SidecarError) -> None:
        """Evict the connection: refuse a begun head, stop a request in progress, end at once."""
        self.stop(error)
        self._cut_off()

    def give_way_stuck(self, since: float, error: SidecarError) -> None:
        """No effect: a connection with one request at a time is evicted as a whole."""

    def give_up(self) -> None:
        """End the connection at once if only its peer keeps it open: idle, or not reading the end of an answer."""
        self._read_early()
        asks = (self._reader.held or self.rest) and not (self.teardown.phase >= Phase.LINGERING or self.writing_paused)
        if self.stream is None and not asks:
            self._cut_off()

    def finish(self) -> None:
        """Close when the request in progress has ended; at once if there is none and none was just refused."""
        self._read_early()
        self.teardown.enter(Phase.LAST)
        lingers = self.teardown.phase >= Phase.LINGERING
        if self.stream is None and not (self._reader.held or self.rest or lingers):
            self._close_idle()

    def end_unused(self) -> None:
        """Close when the request in progress has ended; at once if there is none."""
        self._read_early()
        if self.stream is None:
            self.cut_off()
        else:
            self.finish()

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._half_closes = transport.get_extra_info("ssl_object") is None
        self._opened_at = self.moved_at = self._clock()
        self.ages_at = self._opened_at + self._limits.max_age_s
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Serve the input, then write once."""
        self.moved_at = self._read_at = self._clock()
        rest = self.rest
        if rest or self.stream is not None or self.teardown.phase >= _LINGERING:
            self._receive_more(data)
            return
        warm = self._warm
        if warm is not None and self._reader.fresh:
            data = self._offer(warm, data)
            if not data:
                return
        self._advancing = True
        try:
            if self._read_head(data) and self.rest:
                self._use_rest()
        finally:
            self._advancing = False
        self._settle()

    def _offer(self, warm: Warm, data: bytes) -> bytes:
        """Offer input to the native engine; return the bytes that it neither consumes nor waits for."""
        early, self._early = self._early, b""
        if early:
            data = early + data
        taken = warm(self, data)
        if early and taken is False:  # put before the later input
            self.moved_at = self._read_at = self._early_at
        if taken is None:
            self._early, self._early_at = data, self._early_at if early else self.moved_at
            if not early:
                asyncio.get_running_loop().call_later(REST_S, self._read_early)
        return data if taken is False else b""

    def _read_early(self) -> None:
        """Begin a request before the rest of its body arrives."""
        early, self._early = self._early, b""
        if early:
            warm, self._warm = self._warm, None
            try:
                self.data_received(early)
            finally:
                self._warm = warm

    def eof_received(self) -> bool:
        """Handle the peer's FIN: answer an unfinished head, abandon the request in progress. True if writing goes on.

        The transport closes, except after a switch of protocols on a connection that can be half-closed.
        """
        self._read_early()
        self.writes.write_all()
        stream = self.stream
        if stream is not None:
            if self._half_closes and stream.switched and stream.end_of_input():
                return True
            self._lose_peer()
        elif self._reader.held and self.teardown.linger is None:
            self._refuse(Denied(Reason.BAD_REQUEST, "the request ends inside its head"))
        self.teardown.stop()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._read_early()
        self.connections.discard(self)
        self.teardown.enter(Phase.CLOSING)
        if self.stream is not None:
            self._lose_peer()
        elif self._reader.first_line_read:
            stream = H1Stream(self, None, self._reader.held)
            stream.gone = True
            self.handler.on_refused(stream, Denied(Reason.PEER_GONE, "the peer vanished inside a head"))
        self._reader.clear()
        self.rest = b""

    def pause_writing(self) -> None:
        """Pause the source of the answer: the write buffer is full."""
        self.writing_paused = True
        self.teardown.wait_for_peer()
        if self.stream is not None and self.stream.sender is not None:
            self.stream.sender.on_caller_pause()

    def resume_writing(self) -> None:
        """Resume the source of the answer."""
        self.writing_paused = False
        if self.stream is not None and self.stream.sender is not None:
            self.stream.sender.on_caller_resume()
        if self.share is Share.QUEUED and self.stream is None:
            self._wait_for_turn()

    # --- reading

    def _receive_more(self, data: bytes) -> None:
        """Handle input during a request, while another waits, or after the last request."""
        teardown = self.teardown
        if teardown.phase < Phase.LINGERING:
            self.rest = self.rest + data if self.rest else data
            if self.share is _SPENT:
                self.share = Share.GRANTED
            self.advance()
        elif teardown.linger is not None:
            teardown.received(self.transport, self.moved_at, len(data))

    def advance(self) -> None:
        """Process the buffered input as far as possible. A nested call does nothing."""
        if self._advancing:
            return
        self._advancing = True
        try:
            self._use_rest()
        finally:
            self._advancing = False
        self._settle()

    def _use_rest(self) -> None:
        while self.rest and self.teardown.phase < _LINGERING and self._step():
            pass

    def _step(self) -> bool:
        if self.stream is not None:
            return self._take_body(self.stream)
        if self.share is Share.GRANTED:
            data, self.rest = self.rest, b""
            return self._read_head(data)
        self._wait_for_turn()
        return False

    def _settle(self) -> None:
        """Write the output of the processed input, then pause or resume reading."""
        stream = self.stream
        if stream is not None and (stream.intake is not None or self.out.pieces):
            stream.batch_end()
            self._regulate()
        elif self.rest or self.reading_paused:
            self._regulate()

    def _take_body(self, stream: H1Stream) -> bool:
        intake = stream.intake
        if intake is None or self.share is Share.QUEUED:  # another request waits until this one is answered
            return False
        data, self.rest = self.rest, b""
        rest = intake.take(stream, data)
        if rest is None:
            self.rest = data
            return False
        if self.teardown.phase >= Phase.LINGERING:  # the sink ended the connection
            return False
        self.rest = rest
        if rest and stream.intake is intake:  # more of the body than one iteration's share
            self._wait_for_turn()
            return False
        return True

    def _wait_for_turn(self) -> None:
        """Queue for a turn: the buffered input exceeds one iteration's share.

        A peer that reads no answer gets no turn for further requests.
        """
        self.share = Share.QUEUED
        if self.stream is not None or not self.writing_paused:
            self.connections.turns.wait(self.connections.group_of(self), self._take_turn)

    def _take_turn(self) -> None:
        stream = self.stream
        if self.share is Share.QUEUED and (stream is not None or not self.writing_paused):
            self.share = Share.GRANTED if stream is None else Share.SPENT
            self.advance()

    def _regulate(self) -> None:
        """Pause or resume reading, so that little more than one read is ever buffered."""
        stream = self.stream
        if stream is None or self.share is Share.QUEUED:
            pause = bool(self.rest)
        else:
            pause = stream.body_paused or len(self.rest) > _MAY_WAIT
        if pause != self.reading_paused and self.teardown.phase is not Phase.CLOSING:
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.moved_at = self._clock()
                self.transport.resume_reading()

    def _read_head(self, data: bytes) -> bool:
        reader = self._reader
        held = reader.held
        try:
            found = reader.read(data)
        except Denied as error:
            self._refuse(error, bytes_in=held + len(data))
            return False
        if found is None:
            if not held:
                self._head_began_at = self.moved_at
            return False
        head, size, self.rest = found
        self.share = _SPENT  # the next request in the same bytes waits
        stream = self.stream = H1Stream(self, head, size)
        if head.has_body:
            stream.intake = Intake(reader.body_of(head))
            self._body_pace.begin(self.moved_at, size)
        self.handler.on_request(stream)
        return True

    def _refuse(self, error: SidecarError, *, bytes_in: int | None = None) -> None:
        """Refuse a head. The bytes after it are never read as a request. ``bytes_in``: its size; None: as collected."""
        reader = self._reader
        stream = H1Stream(self, reader.refused_head, reader.held if bytes_in is None else bytes_in)
        stream.closes = True
        reader.clear()
        self.teardown.enter(Phase.REFUSED)
        self.stream = stream
        self.handler.on_refused(stream, error)

    def cut_off(self) -> None:
        """End the connection at once. Data already in the kernel is still sent."""
        self.writes.write_all()
        self.teardown.cut_off(self.transport)

    # --- for the stream

    def write(self, data: bytes) -> None:
        """Write at the end of this event-loop iteration at the latest."""
        self.writes.defer(self.transport, data)

    def may_keep(self) -> bool:
        """True if another request may follow the one in progress."""
        if self.moved_at >= self.ages_at or self.teardown.phase is not _OPEN:
            return False
        if not self.connections.draining:
            return True
        return b"\r\n\r\n" in self.rest and self.connections.may_stay(waiting_since=self._read_at)

    @property
    def has_rest(self) -> bool:
        """True if received bytes are waiting to be used."""
        return bool(self.rest)

    def take_rest(self) -> bytes:
        """Remove and return all buffered input, and cancel its turn."""
        if self.share is Share.QUEUED:
            self.share = _SPENT
        data, self.rest = self.rest, b""
        return data

    def take_all(self, length: int | None) -> bytes | None:
        """Remove and return all buffered input if it has this length; else None. Reading resumes."""
        data = self.rest
        if len(data) != length or self.share is Share.QUEUED:
            return None
        self.rest = b""
        if self.reading_paused:
            self._regulate()
        return data

    def let_others_first(self, take: Turn) -> None:
        """Yield: call ``take``, of a sink of raw bytes, in a later turn of this peer."""
        self.share = Share.LENT
        self.connections.turns.wait(self.connections.group_of(self), partial(self._go_on, take))

    def _go_on(self, take: Turn) -> None:
        if self.share is Share.LENT:
            self.share = _SPENT
        take()

    def put_back(self, rest: bytes) -> None:
        """Put back the input after the body."""
        self.rest = rest

    def answered(self, stream: H1Stream) -> None:
        """Continue after the current answer: next request, linger, or close."""
        self.stream = None
        self.moved_at = self._clock()
        if stream.intake is not None:
            stream.intake.sink = None
            self._begin_lingering()
        elif stream.closes or self.teardown.phase is not _OPEN:
            if self.teardown.phase is Phase.REFUSED or self.rest:
                self._begin_lingering()
            else:
                self.close()
        elif self.rest or self.reading_paused:
            self.advance()

    def cut(self, *, reset: bool) -> None:
        """Close so that the answer is recognisably truncated; ``reset`` if only a reset shows it (no stated length)."""
        self.stream = None
        if reset:
            self.writes.write_all()
            self.teardown.reset(self.transport)
        else:
            self.close()

    # --- the end

    def _begin_lingering(self) -> None:
        """Linger: the last answer is written, but the peer may still be sending."""
        self.writes.write_all()
        self.rest = b""
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()
        self.teardown.begin_lingering(self.transport, half_closes=self._half_closes)

    def close(self) -> None:
        """Close when the written data has been sent."""
        self.writes.write_all()
        self.teardown.close(self.transport)

    def _close_idle(self) -> None:
        self.writes.write_all()
        self.teardown.close(self.transport, idle_s=self._clock() - self.moved_at)

    def _lose_peer(self, error: SidecarError | None = None) -> None:
        stream, self.stream = self.stream, None
        self.teardown.stop()
        if stream is not None:
            stream.lose_peer(error)

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        teardown = self.teardown
        if teardown.phase is Phase.CLOSING or self.writing_paused:
            slow = self._why_slow(now)
            if slow:
                if self.stream is not None:
                    self.connections.note_unread(self.connections.group_of(self))
                self._lose_peer(Denied(Reason.PEER_SLOW, slow))
                self._cut_off()
        elif teardown.linger is not None:
            if teardown.linger.over(now):
                self.close()
        elif self.stream is not None:
            if self._has_left_unseen(self.stream):
                self._lose_peer()
                self._cut_off()
            elif self.connections.sheds(self.connections.group_of(self)) and not self.stream.status:
                self.stream.stop(Unavailable(Reason.OVERLOADED, MANY_WAIT))
            elif self.stream.intake is not None:
                self._sweep_body(self.stream, now)
        elif self._reader.held:
            if now - self._head_began_at > self._limits.head_timeout_s:
                self._refuse(Denied(Reason.TIMEOUT, "the head did not arrive in time"))
        elif not self._early and self._idle_too_long(now) and not unread(self.transport):  # unread bytes: we are late
            self._close_idle()

    def _why_slow(self, now: float) -> str:
        """Return the reason to drop the peer; empty to keep waiting."""
        teardown, stream = self.teardown, self.stream
        if teardown.waited_enough(self.transport, now, idle_s=self._idle_s(now)):
            return "it took too little of its answer for too long"
        if stream is None or not self.writing_paused:
            return ""
        group, behind_s = self.connections.group_of(self), now - teardown.behind_since
        if behind_s < WAITS_S:
            self.connections.end_waiting(group, stream)
        elif not self.connections.begin_waiting(group, stream):
            return MANY_WAIT
        silent_s = teardown.silent_s(self.transport, now)
        unread = silent_s > self._limits.unread_timeout_s and self._has_read_little(stream)
        return "it reads nothing of its answer" if unread else ""

    def _has_read_little(self, stream: H1Stream) -> bool:
        """True if the peer's kernel has acknowledged less of the answer than ``min_rate`` asks in ``write_timeout_s``.

        False for raw bytes, which have an idle limit instead.
        """
        if stream.switched:
            return False
        waiting = self.transport.get_write_buffer_size() + (queued(self.transport) or 0)
        return stream.bytes_out - waiting < self._limits.min_rate * self._limits.write_timeout_s

    def _idle_s(self, now: float) -> float | None:
        """Return the longest permitted silence in both directions.

        None: a minimum rate applies instead.
        """
        stream = self.stream
        if stream is None or not RULES[stream.kind].stays_open:
            return None
        return stream.idle_s if now - self._read_at > stream.idle_s else float("inf")

    def _sweep_body(self, stream: H1Stream, now: float) -> None:
        limits, pace = self._limits, self._body_pace
        if RULES[stream.kind].stays_open or not stream.waits_for_body or self.rest:  # the client is not late
            pace.begin(now, stream.bytes_in)
        elif pace.lasts(now, stream.bytes_in, limits.min_rate * limits.body_timeout_s) > limits.body_timeout_s:
            stream.fail_body(Denied(Reason.TIMEOUT, "the body comes too slowly, or no more"))

    def _has_left_unseen(self, stream: H1Stream) -> bool:
        """True if the peer disconnected while reading is paused, which the transport reports only after resuming."""
        waits = self.reading_paused and self.share is not Share.LENT
        return waits and not (self._half_closes and stream.switched) and has_left(self.transport)

    def _cut_off(self) -> None:
        self.cut_off()
        self.connections.discard(self)  # uvloop may close it without notice

    def _idle_too_long(self, now: float) -> bool:
        fresh = self.moved_at == self._opened_at
        allowed = self._limits.head_timeout_s if fresh else self._limits.keep_alive_timeout_s
        aged = now > self.ages_at
        unwanted = self.connections.no_longer_wanted(now, self.moved_at)
        return aged or unwanted or now - self.moved_at > allowed
