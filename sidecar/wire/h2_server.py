"""HTTP/2 server connections: streams of requests in, answers out, limits and deadlines.

Made and used as ``h1_server.ServerConnection``: a ``RequestHandler`` gets each stream as the one request that it is,
and nothing that ends a stream ends another. One request is read from a batch of input, the next one in a later turn of
its peer's. A connection ends by GOAWAY: streams that have begun finish, later ones are refused (RFC 9113 section 6.8).

States are those of ``teardown.Phase``: LAST is a connection that serves no further stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, cast

from h2.events import DataReceived, RemoteSettingsChanged, RequestReceived, StreamReset, TrailersReceived, WindowUpdated

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.grpc import is_grpc, timeout_of
from sidecar.wire.h2_compression import literals
from sidecar.wire.h2_connection import FrameConnection
from sidecar.wire.h2_frames import (
    MAX_FRAME,
    PREFACE,
    Code,
    Frame,
    FrameReader,
    H2Error,
    Kind,
    goaway,
    last_stream_of,
    rst_stream,
)
from sidecar.wire.h2_head import request_of, trailers_of
from sidecar.wire.h2_session import Session
from sidecar.wire.h2_stream import H2ServerStream
from sidecar.wire.h2_unread import UnreadBodies, UnreadBody
from sidecar.wire.kernel import has_left, unread
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Field
from sidecar.wire.stream import RequestHandler
from sidecar.wire.teardown import Phase, Teardown

_log: Final = logging.getLogger("sidecar.wire")

MAX_STREAMS: Final = 100  # of one connection at a time: what RFC 9113 section 6.5.2 recommends at least
_LEAVE_GRACE_S: Final = 1.0  # for streams that were begun before their peer could know that we leave
_EVERY_STREAM: Final = 0x7FFFFFFF
_MALFORMED: Final = frozenset({Reason.BAD_REQUEST, Reason.AMBIGUOUS_FRAMING})


class H2ServerConnection(FrameConnection[H2ServerStream]):
    """One accepted connection whose peer speaks HTTP/2; plain or TLS, on any event loop."""

    def __init__(self, handler: RequestHandler, limits: ServerLimits, connections: Connections[Any]) -> None:
        session = Session(client_side=False, max_streams=MAX_STREAMS, max_head_bytes=limits.max_head_bytes)
        super().__init__(connections, session, FrameReader(preface=PREFACE, max_block=2 * limits.max_head_bytes))
        session.receive_data(PREFACE)  # the reader checks that of the peer
        self.handler = handler
        self._limits = limits
        self._unread = UnreadBodies(MAX_STREAMS)
        self._teardown = Teardown(limits, connections.clock)
        self._half_closes = False
        self._served = False  # a request, ever
        self._leaving_since: float | None = None
        self._block_bytes = 0  # on the wire, of the head that arrives
        self._opened_at = self._begun_at = self._ages_at = 0.0

    # --- for the listener

    @property
    def waits_since(self) -> float | None:
        """Start of the current wait for a request (monotonic seconds); None if one is in progress, or if closed."""
        if self._streams or self._teardown.phase is Phase.CLOSING:
            return None
        if self._teardown.linger is not None:
            return self._teardown.linger.began_at
        return self._begun_at if self._reader.unfinished else self._moved_at

    @property
    def behind_since(self) -> float | None:
        """Start of the period in which the peer takes next to nothing (monotonic seconds); None if it is not behind.

        So is a peer that opens no window of any request in progress.
        """
        if self.writing_paused or self._teardown.phase is Phase.CLOSING:
            return self._teardown.behind_since
        waiting = self._windows.waiting
        if not waiting or len(waiting) < len(self._streams):
            return None
        return max([stream.pace.began_at for stream in waiting.values()])

    @property
    def kept(self) -> bool:
        """Tell if it is idle, waiting for another request."""
        return self._served and not self._streams and not self._reader.unfinished and self._teardown.linger is None

    def hand_over(self, handler: RequestHandler) -> None:
        """Let another handler serve its requests from now on."""
        self.handler = handler

    def stop(self, error: SidecarError) -> None:
        """End the requests in progress for ``error``; then close."""
        for stream in tuple(self._streams.values()):
            stream.end_for(error)
        self.finish()

    def give_way(self, error: SidecarError) -> None:
        """End at once, as evicted; requests in progress are stopped."""
        self.stop(error)
        self.cut_off()
        self._connections.discard(self)

    def give_way_stuck(self, since: float, error: SidecarError) -> None:
        """End the requests whose windows the peer has hardly opened since then."""
        for stream in tuple(self._windows.waiting.values()):
            if stream.pace.began_at <= since:
                self._end_stuck(stream, error)

    def give_up(self) -> None:
        """Cut it off if only its peer keeps it open."""
        if not self._streams:
            self.cut_off()
            self._connections.discard(self)

    def finish(self) -> None:
        """Serve no further stream, and close after the last."""
        if self._teardown.phase is Phase.OPEN:
            self._teardown.enter(Phase.LAST)
            self._write(goaway(self._session.highest_inbound_stream_id, Code.NO_ERROR))
        self._close_if_done()

    def end_unused(self) -> None:
        """End now if no request is in progress, else after the last one."""
        if self._streams:
            self.finish()
        else:
            self.cut_off()

    def cut_off(self) -> None:
        """End the connection at once. What the kernel has of the written data still leaves."""
        self._write()
        self._teardown.cut_off(self.transport)

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with our settings."""
        self.transport = cast("asyncio.Transport", transport)
        self._half_closes = transport.get_extra_info("ssl_object") is None
        self._opened_at = self._moved_at = self._begun_at = self._clock()
        self._ages_at = self._opened_at + self._limits.max_age_s
        self._connections.add(self)
        self._group = self._connections.group_of(self)
        self._session.begin()
        self._write()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        self._moved_at = self._clock()
        if not self._alive:
            self._teardown.received(self.transport, self._moved_at, len(data))
            return
        if not self._reader.unfinished:
            self._begun_at = self._moved_at
        self._reader.feed(data)
        if not self._queued:
            self._advance()
        self._regulate()

    def eof_received(self) -> bool:
        """Take the peer's FIN: give up the requests in progress. The transport closes."""
        self._lose_all(None)
        self._teardown.stop()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._connections.discard(self)
        self._teardown.enter(Phase.CLOSING)
        self._lose_all(None)
        self._reader.clear()
        self._session.forget()

    def pause_writing(self) -> None:
        """Pause the sources of answers: the peer is behind."""
        self.writing_paused = True
        self._teardown.wait_for_peer()
        for stream in tuple(self._streams.values()):
            if stream.sender is not None:
                stream.sender.on_caller_pause()

    def resume_writing(self) -> None:
        """Resume the sources of answers."""
        self.writing_paused = False
        self._unblock()
        for stream in tuple(self._streams.values()):
            if stream.sender is not None and not stream.writing_paused:
                stream.sender.on_caller_resume()
        if self._alive:
            self._begun_at = self._moved_at = self._clock()  # the wait was ours
            if not self._queued:
                self._advance()
            self._regulate()

    # --- reading

    @property
    def _alive(self) -> bool:
        return self._teardown.phase < Phase.LINGERING

    @property
    def _reads(self) -> bool:
        """None while the peer is behind: heads and resets are written whatever it takes, and would pile up here."""
        return self._alive and not (self._done or self.writing_paused)

    def _take(self, frame: Frame) -> bool:
        """Act on a frame. Tell if it brought a request."""
        if not self._reader.inside_head:
            self._begun_at = self._moved_at
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
        if not events and frame.ends_head:  # on a stream that was reset: it costs its decompression
            self._block_bytes = 0
            self._reader.count_reset(self._moved_at)
        for event in events:
            asked = self._act(event) or asked
        return asked

    def _act(self, event: object) -> bool:
        """Act on an event. A bug ends the request that it is of, and no other of the connection."""
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
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._windows_opened = True
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
        refusal = self._why_refused()
        stream.refused = refusal is not None
        self._streams[stream_id] = stream
        self._served = True
        if refusal is not None:
            self.handler.on_refused(stream, refusal)
            return
        try:
            head = request_of(cast("Sequence[Field]", event.headers), self._limits, ends=ends)
            stream.begin(head)
            seconds = timeout_of(head) if is_grpc(head) else None
        except Denied as error:
            stream.malformed = error.reason in _MALFORMED
            self.handler.on_refused(stream, error)
            return
        if seconds is not None:
            stream.end_in(seconds)
        stream.pace.begin(self._moved_at, stream.bytes_in)
        self.handler.on_request(stream)

    def _why_refused(self) -> Unavailable | None:
        """Return the reason why no other stream may begin. None: it may, and is counted."""
        if len(self._streams) >= MAX_STREAMS:
            return Unavailable(Reason.OVERLOADED, "more streams at a time than our settings say")
        if self._teardown.phase >= Phase.LAST:
            return Unavailable(Reason.DRAINING, "a stream that began after our GOAWAY")
        if not self._connections.begin_stream(self._group):
            return Unavailable(Reason.OVERLOADED, "too many requests of HTTP/2 are in progress")
        return None

    def _forget(self, stream_id: int) -> H2ServerStream | None:
        """Forget a stream that is over."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._windows.forget(stream_id)
            if not stream.refused:
                self._connections.end_stream(self._group)
        return stream

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self._discard(event)
            return
        stream.receive(event.data, event.flow_controlled_length, ends=event.stream_ended is not None)
        if stream.malformed:
            self._reader.count_reset(self._moved_at)

    def _discard(self, event: DataReceived) -> None:
        """Discard content of a request that is answered; what shows it malformed still resets the stream."""
        size, ends = len(event.data), event.stream_ended is not None
        self._session.taken(event.flow_controlled_length, event.stream_id)
        self._end_unread(event.stream_id, self._unread.receive(event.stream_id, size, ends=ends))

    def _end_unread(self, stream_id: int, code: int | None) -> None:
        """With a code, reset a stream whose answer is complete. To the library it may be closed already."""
        if code is not None and not self._reset(stream_id, code):
            self._write(rst_stream(stream_id, code))

    def _on_trailers(self, event: TrailersReceived) -> None:
        """Check the trailers of a request, and drop them: they have passed no check that its head has."""
        stream = self._streams.get(event.stream_id)
        if stream is None and event.stream_id not in self._unread:
            return
        limits = self._limits
        try:
            trailers_of(
                cast("Sequence[Field]", event.headers),
                max_bytes=limits.max_head_bytes,
                max_fields=limits.max_fields,
            )
        except Denied as error:
            if stream is not None:
                stream.fail_body(Denied(Reason.AMBIGUOUS_FRAMING, f"malformed trailers: {error.detail}"))
                self._reader.count_reset(self._moved_at)
            else:
                self._unread.forget(event.stream_id)
                self._end_unread(event.stream_id, Code.PROTOCOL_ERROR)
            return
        if stream is not None:
            stream.receive(b"", 0, ends=True)
            if stream.malformed:
                self._reader.count_reset(self._moved_at)
        else:
            self._end_unread(event.stream_id, self._unread.receive(event.stream_id, 0, ends=True))

    # --- for streams

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
            self._session.end_stream(stream.stream_id)
        self.answered(stream)

    def reset(self, stream: H2ServerStream, code: int) -> None:
        """End the stream at once."""
        if self._streams.get(stream.stream_id) is stream and self._alive:
            self._reset(stream.stream_id, code)

    def answered(self, stream: H2ServerStream) -> None:
        """Finish a stream: its answer has ended. A little of what it still sends is read, and discarded."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        if not (stream.body.ended or stream.malformed or stream.refused):
            body = UnreadBody(stream.body.received, stream.body.expected, self._clock())
            if not self._unread.add(stream.stream_id, body):
                self.reset(stream, Code.NO_ERROR)
        self._forget(stream.stream_id)
        self._moved_at = self._clock()
        self._write_soon()
        if not self._advancing:
            self._close_if_done()

    # --- the end

    def _fail(self, fault: H2Error) -> None:
        """End the connection for a fault of the peer's, with a record even if no request was in progress."""
        told = goaway(self._session.highest_inbound_stream_id, fault.code, fault.error.reason.encode())
        self._write(b"" if fault.told else told)
        if self._alive:
            self._teardown.begin_lingering(self.transport, half_closes=self._half_closes)
        if not self._streams:
            stream = H2ServerStream(self, 0, max_body_bytes=0)
            stream.gone = True
            stream.bytes_in, self._block_bytes = self._block_bytes, 0
            self.handler.on_refused(stream, fault.error)
        self._lose_all(fault.error)
        self._reader.clear()

    def _lose_all(self, error: SidecarError | None) -> None:
        self._unread.clear()
        streams = [self._forget(stream_id) for stream_id in tuple(self._streams)]
        for stream in streams:
            if stream is not None:
                stream.lose_peer(error)

    @property
    def _done(self) -> bool:
        """Tell if no further stream is served, and none is in progress."""
        return self._teardown.phase is Phase.LAST and not self._streams

    def _close_if_done(self) -> None:
        if self._done:
            self._write()
            self._teardown.close(self.transport)

    def _leave(self, now: float) -> None:
        """Tell the peer to begin no stream here; those that are on their way are served for a while."""
        if self._leaving_since is None:
            self._leaving_since = now
            self._write(goaway(_EVERY_STREAM, Code.NO_ERROR))
        elif now - self._leaving_since >= _LEAVE_GRACE_S:
            self.finish()

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        literals.sweep(now)
        teardown = self._teardown
        if teardown.phase is Phase.CLOSING or self.writing_paused:
            if teardown.waited_enough(self.transport, now):
                self._lose_all(Denied(Reason.PEER_SLOW, "it took too little of its answers for too long"))
                self.cut_off()
                self._connections.discard(self)
        elif teardown.linger is not None:
            if teardown.linger.over(now):
                teardown.close(self.transport)
        elif self._reading_paused and has_left(self.transport):
            self._lose_all(None)
            self.cut_off()
            self._connections.discard(self)
        elif self._reader.unfinished and not self._queued and now - self._begun_at > self._patience_s:
            self._fail(H2Error(Code.PROTOCOL_ERROR, Denied(Reason.TIMEOUT, "a head or frame did not arrive in time")))
        else:
            for stream in tuple(self._streams.values()):
                self._sweep_stream(stream, now)
            for stream_id in self._unread.late(now, self._limits.linger_timeout_s):
                self._end_unread(stream_id, Code.NO_ERROR)
            self._sweep_idle(now)

    @property
    def _patience_s(self) -> float:
        """The time for a frame or head to arrive. Streams judge their content; for that of others there is a rate."""
        content_of, limits = self._reader.content_of, self._limits
        if content_of in self._streams:
            return float("inf")
        return max(limits.head_timeout_s, MAX_FRAME / limits.min_rate if content_of else 0.0)

    def _sweep_idle(self, now: float) -> None:
        if self._connections.draining or now > self._ages_at:
            if not self._streams and self._connections.no_longer_wanted(now, self._moved_at):
                self.finish()
            else:
                self._leave(now)
        elif not self._streams and not unread(self.transport):
            allowed = self._limits.keep_alive_timeout_s if self._served else self._limits.head_timeout_s
            if now - self._moved_at > allowed:
                self.finish()

    def _end_stuck(self, stream: H2ServerStream, error: SidecarError) -> None:
        self._reset(stream.stream_id, Code.CANCEL)
        self._forget(stream.stream_id)
        stream.lose_peer(error)

    def _sweep_stream(self, stream: H2ServerStream, now: float) -> None:
        limits = self._limits
        if stream.pending:
            enough = limits.min_rate * limits.write_timeout_s
            if stream.pace.lasts(now, stream.bytes_sent, enough) > limits.write_timeout_s:
                self._end_stuck(stream, Denied(Reason.PEER_SLOW, "it opens the window of its answer too little"))
        elif stream.body.awaited:
            moved = stream.bytes_in + (self._reader.held if self._reader.content_of == stream.stream_id else 0)
            enough = limits.min_rate * limits.body_timeout_s
            if stream.pace.lasts(now, moved, enough) > limits.body_timeout_s:
                stream.fail_body(Denied(Reason.TIMEOUT, "the body comes too slowly, or no more"))
        else:
            stream.pace.begin(now, stream.bytes_in)
