"""Requests of an HTTP/2 connection: makes streams of frames for a ``RequestHandler``, and writes its answers.

Each stream is one request; the end of a stream affects no other. Each turn of the peer reads one request.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, cast

from h2.events import DataReceived, RemoteSettingsChanged, RequestReceived, StreamReset, TrailersReceived, WindowUpdated

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.grpc import is_grpc, timeout_of
from sidecar.wire.h2_connection import FrameConnection
from sidecar.wire.h2_frames import PREFACE, Code, Frame, FrameReader, H2Error, Kind, last_stream_of, rst_stream
from sidecar.wire.h2_head import request_again, trailers_of
from sidecar.wire.h2_session import Session
from sidecar.wire.h2_stream import H2ServerStream
from sidecar.wire.h2_unread import MAX_DISCARDED, UnreadBodies, UnreadBody
from sidecar.wire.lifetimes import RULES
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Field
from sidecar.wire.stream import RequestHandler
from sidecar.wire.teardown import MANY_WAIT, WAITS_S, Pace, Phase, Teardown

_log: Final = logging.getLogger("sidecar.wire")

_OPENS_WINDOWS: Final = WindowUpdated, RemoteSettingsChanged
MAX_STREAMS: Final = 100  # of one connection at a time: what RFC 9113 section 6.5.2 recommends at least
_MALFORMED: Final = frozenset({Reason.BAD_REQUEST, Reason.AMBIGUOUS_FRAMING})


class RequestConnection(FrameConnection[H2ServerStream]):
    """The requests of one accepted connection. ``H2ServerConnection`` decides when the connection ends."""

    def __init__(self, handler: RequestHandler, limits: ServerLimits, connections: Connections[Any]) -> None:
        session = Session(client_side=False, max_streams=MAX_STREAMS, max_head_bytes=limits.max_head_bytes)
        super().__init__(connections, session, FrameReader(preface=PREFACE, max_block=2 * limits.max_head_bytes))
        session.receive_data(PREFACE)  # our reader checks the peer's preface
        self.handler = handler
        self._limits = limits
        self._unread = UnreadBodies(MAX_STREAMS)
        self._teardown = Teardown(limits, connections.clock)
        self._served = False  # a request, ever
        self._shut = False  # the peer's settings give streams no initial window
        self._block_bytes = 0  # on the wire, of the head that arrives
        self._idle_since = 0.0  # start of the time without requests; other frames do not count as use

    @abstractmethod
    def finish(self) -> None:
        """Serve no further stream, and close after the last."""

    @property
    def _alive(self) -> bool:
        return self._teardown.phase < Phase.LINGERING

    @property
    def _reads(self) -> bool:
        """False while the write buffer is full: heads and resets ignore windows, and would pile up."""
        phase = self._teardown.phase
        return phase < Phase.LINGERING and not self.writing_paused and (phase is not Phase.LAST or bool(self._streams))

    @property
    def _done(self) -> bool:
        """True if no stream is in progress and none will be served."""
        return self._teardown.phase is Phase.LAST and not self._streams

    def _take(self, frame: Frame) -> bool:
        """Act on a frame. True if it began a request."""
        kind, stream = frame.kind, self._streams.get(frame.stream_id)
        if kind == Kind.GOAWAY:  # the library would serve no stream any more
            last_stream_of(frame)
            self._teardown.enter(Phase.LAST)
            return False
        if stream is not None:
            stream.bytes_in += len(frame.data)
        elif kind in (Kind.HEADERS, Kind.CONTINUATION):
            self._block_bytes += len(frame.data)
        asked = False
        events = self._session.read(frame.data)
        if not events and frame.ends_head:  # a head on a reset stream: decompressing it cost CPU
            self._block_bytes = 0
            self._reader.count_reset(self._moved_at)
        for event in events:
            asked = self._act(event) or asked
        return asked

    def _act(self, event: object) -> bool:
        """Act on an event; True if it began a request. A bug ends only the request of the event."""
        try:
            return self._on_event(event)
        except H2Error:
            raise
        except Exception:
            stream = self._streams.get(getattr(event, "stream_id", None) or 0)
            if stream is None:
                raise
            _log.exception("serving a request failed")
            stream.end_for(Unavailable(Reason.INTERNAL, "serving a request failed"))
            stream.abort()  # without effect if that was answered
            return True

    def _on_event(self, event: object) -> bool:
        if isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, RequestReceived):
            self._on_request(event)
            return True
        elif isinstance(event, _OPENS_WINDOWS):
            self._windows_opened = True
            self._shut = self._session.remote_settings.initial_window_size <= 0
        elif isinstance(event, StreamReset):
            stream = self._forget(event.stream_id)
            self._unread.forget(event.stream_id)
            if stream is not None:
                stream.lose_peer()
            if not event.remote_reset:  # the peer made the library reset it, which saves it a RST_STREAM of its own
                self._reader.count_reset(self._moved_at)
        elif isinstance(event, TrailersReceived):
            self._on_trailers(event)
        return False

    def _on_request(self, event: RequestReceived) -> None:
        stream_id, ends = event.stream_id, event.stream_ended is not None
        stream = H2ServerStream(self, stream_id, max_body_bytes=self._limits.max_body_bytes)
        stream.bytes_in, self._block_bytes = self._block_bytes, 0
        stream.body.ended = ends
        refusal = self._why_refused(stream)
        stream.refused = refusal is not None
        self._streams[stream_id] = stream
        self._served = True
        if refusal is not None:
            self.handler.on_refused(stream, refusal)
            return
        try:
            head = request_again(cast("Sequence[Field]", event.headers), self._limits, ends=ends)
            stream.begin(head)
            stream.grpc = head.method == "POST" and is_grpc(head)
            seconds = timeout_of(head) if stream.grpc else None
        except Denied as error:
            stream.malformed = error.reason in _MALFORMED
            self.handler.on_refused(stream, error)
            return
        if seconds is not None:
            stream.end_in(seconds)
        stream.pace.begin(self._moved_at, stream.bytes_in)
        self.handler.on_request(stream)

    def _why_refused(self, stream: H2ServerStream) -> Unavailable | None:
        """Return the error that refuses a new stream; None if the stream may begin, and is counted."""
        if len(self._streams) >= MAX_STREAMS:
            return Unavailable(Reason.OVERLOADED, "more streams at a time than our settings say")
        if self._teardown.phase >= Phase.LAST:
            return Unavailable(Reason.DRAINING, "a stream that began after our GOAWAY")
        if (self._shut or self._windows.waiting) and not self._may_be_answered(stream):
            return Unavailable(Reason.OVERLOADED, MANY_WAIT)
        if not self._connections.begin_stream(self._group):
            return Unavailable(Reason.OVERLOADED, "too many requests of HTTP/2 are in progress")
        return None

    def _may_be_answered(self, stream: H2ServerStream) -> bool:
        """Count an answer without any window. False if too many answers of its peer wait already."""
        return self.window_of(stream) > 0 or self._connections.begin_waiting(self._group, stream)

    def _forget(self, stream_id: int) -> H2ServerStream | None:
        """Remove an ended stream."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._windows.forget(stream_id)
            self._idle_since = self._clock()
            if not stream.refused:
                self._connections.end_stream(self._group)
        return stream

    def _on_data(self, event: DataReceived) -> None:
        stream_id, size, ends = event.stream_id, event.flow_controlled_length, event.stream_ended is not None
        stream = self._streams.get(stream_id)
        if stream is None:  # content of a request that is answered; what shows it malformed still resets the stream
            self._session.taken(size, stream_id)
            self._end_unread(stream_id, self._unread.receive(stream_id, len(event.data), ends=ends))
            return
        stream.receive(event.data, size, ends=ends)
        self._count_malformed(stream)
        if stream.body.dropped and stream.body.received > self._limits.max_body_bytes + MAX_DISCARDED:
            self._end_stuck(stream, Denied(Reason.TOO_LARGE, "more of a body that nobody reads than a body may have"))

    def _on_trailers(self, event: TrailersReceived) -> None:
        """Check and drop the trailers of a request: they bypass the checks of its head."""
        stream_id, limits = event.stream_id, self._limits
        fault: Denied | None = None
        try:
            fields = cast("Sequence[Field]", event.headers)
            trailers_of(fields, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields)
        except Denied as error:
            fault = Denied(Reason.AMBIGUOUS_FRAMING, f"malformed trailers: {error.detail}")
        stream = self._streams.get(stream_id)
        if stream is None:
            known, code = stream_id in self._unread, self._unread.receive(stream_id, 0, ends=True)
            self._end_unread(stream_id, Code.PROTOCOL_ERROR if known and fault else code)
            return
        if fault is None:
            stream.receive(b"", 0, ends=True)
        else:
            stream.fail_body(fault)
        self._count_malformed(stream)

    def _count_malformed(self, stream: H2ServerStream) -> None:
        if stream.malformed:
            self._reader.count_reset(self._moved_at)

    def _end_unread(self, stream_id: int, code: int | None) -> None:
        """Reset a stream whose answer is complete, if ``code`` is given. The library may have closed it already."""
        if code is not None and not self._reset(stream_id, code):
            self._write(rst_stream(stream_id, code))

    # --- answers

    def send_head(self, stream: H2ServerStream, fields: Sequence[Field], *, ends: bool) -> None:
        """Write a head, or the trailers."""
        if stream.refused:
            return
        before = self._session.size_to_send
        self._session.head(stream.stream_id, fields, ends=ends)
        stream.bytes_out += self._session.size_to_send - before
        self._write_soon()

    def _content_left(self, stream: H2ServerStream, *, told: bool) -> None:
        if stream.refused:
            self.reset(stream, Code.REFUSED_STREAM)
        elif stream.malformed:
            self.reset(stream, Code.PROTOCOL_ERROR)
        elif stream.trailers:
            self.send_head(stream, stream.trailers, ends=True)
        elif not told:
            self._session.send_content(stream.stream_id, b"", ends=True)
        self.answered(stream)

    def window_of(self, stream: H2ServerStream) -> int:
        """Return the number of bytes of content that the stream may send now."""
        return self._session.window_of(stream.stream_id)

    def reset(self, stream: H2ServerStream, code: int) -> None:
        """End the stream at once."""
        if self._streams.get(stream.stream_id) is stream and self._alive:
            self._reset(stream.stream_id, code)

    def answered(self, stream: H2ServerStream) -> None:
        """Finish a stream after its answer. A limited rest of its body is read and discarded."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        if not (stream.body.ended or stream.malformed or stream.refused):
            body = UnreadBody(stream.body.received, stream.body.expected, self._clock())
            if not self._unread.add(stream.stream_id, body):
                self.reset(stream, Code.NO_ERROR)
        self._forget(stream.stream_id)
        self._write_soon()
        if not self._advancing:
            self._close_if_done()

    # --- the end of requests

    def _lose_all(self, error: SidecarError | None) -> None:
        self._unread.clear()
        streams = [self._forget(stream_id) for stream_id in tuple(self._streams)]
        for stream in streams:
            if stream is not None:
                stream.lose_peer(error)

    def _end_stuck(self, stream: H2ServerStream, error: SidecarError) -> None:
        self._reset(stream.stream_id, Code.CANCEL)
        self._forget(stream.stream_id)
        stream.lose_peer(error)

    def _end_slow(self, stream: H2ServerStream, why: str) -> None:
        """End a stream whose peer does not read its answer."""
        self._connections.note_unread(self._group)
        self._end_stuck(stream, Denied(Reason.PEER_SLOW, why))

    def _why_slow(self, stream: H2ServerStream, now: float) -> str:
        """Return the reason to end an answer blocked on its window; empty to keep waiting."""
        limits, silence = self._limits, _silence_of(stream)
        behind_s = stream.pace.lasts(now, stream.bytes_sent, limits.min_rate * limits.write_timeout_s)
        if not self._may_wait(stream, behind_s):
            return MANY_WAIT
        if not getattr(stream, "read_some", False) and behind_s > limits.unread_timeout_s:
            return "it opens no window for its answer"
        allowed_s = limits.write_timeout_s
        if silence is not None:  # it stays open: any byte counts, in either direction
            behind_s, allowed_s = silence.lasts(now, stream.bytes_sent + stream.bytes_in, 1), stream.idle_s
        return "it opens the window of its answer too little" if behind_s > allowed_s else ""

    def _may_wait(self, stream: H2ServerStream, behind_s: float) -> bool:
        """Count an answer that hardly moved for ``behind_s`` seconds. False if too many answers of its peer wait."""
        if behind_s < WAITS_S:
            self._connections.end_waiting(self._group, stream)
            return True
        return self._connections.begin_waiting(self._group, stream)

    def _sweep_waiting(self, behind_s: float) -> None:
        """Count the blocked answers of a connection whose peer reads nothing, and end those above the limit."""
        for stream in tuple(self._streams.values()):
            if stream.behind and not self._may_wait(stream, behind_s):
                self._end_slow(stream, MANY_WAIT)

    def _sweep_streams(self, now: float) -> None:
        for stream in tuple(self._streams.values()):
            self._sweep_stream(stream, now)
        for stream_id in self._unread.late(now, self._limits.linger_timeout_s):
            self._end_unread(stream_id, Code.NO_ERROR)

    def _sweep_stream(self, stream: H2ServerStream, now: float) -> None:
        limits, silence = self._limits, _silence_of(stream)
        if not stream.status and self._connections.sheds(self._group):
            stream.end_for(Unavailable(Reason.OVERLOADED, MANY_WAIT))
        elif stream.pending:
            slow = self._why_slow(stream, now)
            if slow:
                self._end_slow(stream, slow)
        elif silence is not None:  # its upstream judges the silence
            silence.begin(now, stream.bytes_sent + stream.bytes_in)
            stream.pace.begin(now, stream.bytes_in)
        elif stream.body.awaited:
            moved = stream.bytes_in + (self._reader.held if self._reader.content_of == stream.stream_id else 0)
            enough = limits.min_rate * limits.body_timeout_s
            if stream.pace.lasts(now, moved, enough) > limits.body_timeout_s:
                stream.fail_body(Denied(Reason.TIMEOUT, "the body comes too slowly, or no more"))
        else:
            stream.pace.begin(now, stream.bytes_in)


def _silence_of(stream: H2ServerStream) -> Pace | None:
    """Return the pace of both directions of a stream that stays open; None if minimum rates apply."""
    return stream.silence if RULES[stream.kind].stays_open else None
