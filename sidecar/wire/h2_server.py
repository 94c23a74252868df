"""HTTP/2 server connections: interface for the listener, event-loop callbacks, deadlines, and the end.

Created and used like ``h1_server.ServerConnection``; ``h2_requests`` serves its requests. A connection ends by GOAWAY:
streams that have begun finish, later ones are refused (RFC 9113 section 6.8).

States: ``teardown.Phase``; in LAST no further stream is served.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h2_compression import literals
from sidecar.wire.h2_frames import MAX_FRAME, Code, Frame, H2Error, goaway
from sidecar.wire.h2_requests import RequestConnection
from sidecar.wire.h2_stream import H2ServerStream
from sidecar.wire.kernel import has_left, unread
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import RequestHandler
from sidecar.wire.teardown import Phase

_LEAVE_GRACE_S: Final = 1.0  # for streams begun before the peer saw our GOAWAY
_EVERY_STREAM: Final = 0x7FFFFFFF


class H2ServerConnection(RequestConnection):
    """One accepted connection whose peer speaks HTTP/2; plain or TLS, on any event loop."""

    def __init__(self, handler: RequestHandler, limits: ServerLimits, connections: Connections[Any]) -> None:
        super().__init__(handler, limits, connections)
        self._half_closes = False
        self._leaving_since: float | None = None
        self._opened_at = self._begun_at = self._ages_at = 0.0

    # --- for the listener

    @property
    def waits_since(self) -> float | None:
        """Start of the current wait for a request (monotonic seconds); None during a request, or if closed."""
        if self._streams or self._teardown.phase is Phase.CLOSING:
            return None
        if self._teardown.linger is not None:
            return self._teardown.linger.began_at
        return self._begun_at if self._reader.unfinished else self._idle_since

    @property
    def behind_since(self) -> float | None:
        """Start of the period in which the peer reads almost nothing (monotonic seconds); None if it keeps up.

        A peer that opens no window of any request in progress counts as reading nothing.
        """
        if self.writing_paused or self._teardown.phase is Phase.CLOSING:
            return self._teardown.behind_since
        waiting = self._windows.waiting
        if not waiting or len(waiting) < len(self._streams):
            return None
        return max([stream.pace.began_at for stream in waiting.values()])

    @property
    def kept(self) -> bool:
        """True if the connection is idle between requests."""
        return self._served and not self._streams and not self._reader.unfinished and self._teardown.linger is None

    def hand_over(self, handler: RequestHandler) -> None:
        """Replace the handler of later requests."""
        self.handler = handler

    def stop(self, error: SidecarError) -> None:
        """End the requests in progress for ``error``; then close."""
        for stream in tuple(self._streams.values()):
            stream.end_for(error)
        self.finish()

    def give_way(self, error: SidecarError) -> None:
        """Evict the connection: stop the requests in progress and end at once."""
        self.stop(error)
        self.cut_off()
        self._connections.discard(self)

    def give_way_stuck(self, since: float, error: SidecarError) -> None:
        """End the requests whose windows the peer has hardly opened since ``since``."""
        for stream in tuple(self._windows.waiting.values()):
            if stream.pace.began_at <= since:
                self._end_stuck(stream, error)

    def give_up(self) -> None:
        """End the connection at once if only its peer keeps it open."""
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
        """Close when the requests in progress have ended; at once if there are none."""
        if self._streams:
            self.finish()
        else:
            self.cut_off()

    def cut_off(self) -> None:
        """End the connection at once. Data already in the kernel is still sent."""
        self._write()
        self._teardown.cut_off(self.transport)

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings."""
        self.transport = cast("asyncio.Transport", transport)
        self._half_closes = transport.get_extra_info("ssl_object") is None
        self._opened_at = self._moved_at = self._begun_at = self._idle_since = self._clock()
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
        """Handle the peer's FIN: abandon the requests in progress. The transport closes."""
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
        """Pause the sources of answers: the write buffer is full."""
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

    def _take(self, frame: Frame) -> bool:
        if not self._reader.inside_head:
            self._begun_at = self._moved_at
        return super()._take(frame)

    # --- the end

    def _fail(self, fault: H2Error) -> None:
        """End the connection for an error of the peer's, with a record even if no request was in progress."""
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

    def _close_if_done(self) -> None:
        if self._done:
            self._write()
            self._teardown.close(self.transport)

    def _leave(self, now: float) -> None:
        """Send GOAWAY; streams already on their way are served for a grace period."""
        if self._leaving_since is None:
            self._leaving_since = now
            self._write(goaway(_EVERY_STREAM, Code.NO_ERROR))
        elif now - self._leaving_since >= _LEAVE_GRACE_S:
            self.finish()

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        literals.sweep(now)
        self._session.forget_heads()
        teardown = self._teardown
        if teardown.phase is Phase.CLOSING or self.writing_paused:
            if teardown.waited_enough(self.transport, now):
                self._lose_all(Denied(Reason.PEER_SLOW, "it took too little of its answers for too long"))
                self.cut_off()
                self._connections.discard(self)
            elif self.writing_paused:
                self._sweep_waiting(now - teardown.behind_since)
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
            self._sweep_streams(now)
            self._sweep_idle(now)

    @property
    def _patience_s(self) -> float:
        """Seconds for a frame or head to arrive. Streams time their content; other content has a minimum rate."""
        content_of, limits = self._reader.content_of, self._limits
        if content_of in self._streams:
            return float("inf")
        return max(limits.head_timeout_s, MAX_FRAME / limits.min_rate if content_of else 0.0)

    def _sweep_idle(self, now: float) -> None:
        if self._connections.draining or now > self._ages_at:
            if not self._streams and self._connections.no_longer_wanted(now, self._idle_since):
                self.finish()
            else:
                self._leave(now)
        elif not self._streams and not unread(self.transport):
            allowed = self._limits.keep_alive_timeout_s if self._served else self._limits.head_timeout_s
            if now - self._idle_since > allowed:
                self.finish()
