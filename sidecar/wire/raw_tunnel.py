"""Raw tunnel: joins a stream with a granted CONNECT and one TCP connection, byte for byte, without parsing.

Each direction goes at the pace of its slower end, and each may end alone: a FIN of one end is passed on to the other,
whose bytes still pass (RFC 9110 section 9.3.6). Ending a tunnel from outside cuts both ends at once: the sidecar does
not know the protocol and cannot close it in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.lifetimes import Kind, patience_of
from sidecar.wire.limits import ClientLimits
from sidecar.wire.stream import Stream
from sidecar.wire.teardown import end_writing

_EARLY: Final = 64 * 1024  # bytes of an end that speaks first; more than one read brings is a flood


class RawEnd(asyncio.Protocol):
    """The far end of a tunnel: a connection without a protocol. Bytes that arrive before ``join`` wait here."""

    def __init__(self, limits: ClientLimits, connections: Connections[RawEnd]) -> None:
        self.transport: asyncio.Transport
        self.writing_paused = False
        self.ended = False  # the far end has sent its FIN
        self._limits = limits
        self._connections = connections
        self._tunnel: RawTunnel | None = None
        self._early = b""
        self._pieces: list[bytes] = []
        self._moved_at = connections.clock()
        self._sent_end = False
        self._lost = False
        self._held_back = False  # by the caller, who reads too slowly: its connection judges that

    def require(self) -> None:
        """Check that the connection is open.

        Raises:
            Unavailable: UPSTREAM_UNREACHABLE: it was lost.
        """
        if self._lost:
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "the far end closed the connection at once")

    @property
    def idle_s(self) -> float:
        """The longest silence of a tunnel."""
        return patience_of(Kind.TUNNEL, self._limits).answer_s

    def join(self, tunnel: RawTunnel) -> None:
        """Deliver received and future bytes to ``tunnel``."""
        self._tunnel = tunnel
        early, self._early = self._early, b""
        if early:
            tunnel.on_far_data(early)
        if self._lost:
            tunnel.on_far_lost()
        elif self.ended:
            tunnel.on_far_end()
        else:
            self.resume_reading()
        if self.writing_paused:
            tunnel.on_far_pause()

    def send(self, data: bytes) -> None:
        """Add bytes; they leave with ``flush``."""
        self._pieces.append(data)

    def flush(self) -> None:
        """Write the collected bytes: one write."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._moved_at = self._connections.clock()
            if not self._sent_end:
                self._connections.writes.defer(self.transport, data)

    def send_no_more(self) -> None:
        """Write the pending bytes, and end this direction."""
        self.flush()
        self._connections.writes.write_all()
        self._moved_at = self._connections.clock()
        if not (self._sent_end or self._lost):
            self._sent_end = True
            end_writing(self.transport)

    def leave(self) -> None:
        """Close once the written bytes are sent; no further event is reported."""
        self._tunnel = None
        self.flush()
        self._connections.writes.write_all()
        self._moved_at = self._connections.clock()
        self.transport.close()

    def cut_off(self) -> None:
        """End the connection at once; no further event is reported."""
        self._tunnel = None
        self.transport.abort()

    def pause_reading(self) -> None:
        """Pause reading."""
        self._held_back = True
        if not (self.ended or self._lost):
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._held_back = False
        if not (self.ended or self._lost):
            self._moved_at = self._connections.clock()
            self.transport.resume_reading()

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or keep the first ones until there is a tunnel."""
        self._moved_at = self._connections.clock()
        if self._tunnel is not None:
            self._tunnel.on_far_data(data)
            return
        self._early += data
        if len(self._early) > _EARLY:
            self.transport.abort()
        else:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Handle the far end's FIN. The other direction goes on."""
        self.ended = True
        self._moved_at = self._connections.clock()
        if self._tunnel is not None:
            self._tunnel.on_far_end()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._connections.discard(self)
        self._lost = True
        if self._tunnel is not None:
            self._tunnel.on_far_lost()

    def pause_writing(self) -> None:
        """Slow the caller down."""
        self.writing_paused = True
        self._moved_at = self._connections.clock()
        if self._tunnel is not None:
            self._tunnel.on_far_pause()

    def resume_writing(self) -> None:
        """Resume reading from the caller."""
        self.writing_paused = False
        self._moved_at = self._connections.clock()
        if self._tunnel is not None:
            self._tunnel.on_far_resume()

    def sweep(self, now: float) -> None:
        """End a silent tunnel, a tunnel whose far end reads nothing, and an unused connection."""
        silent, limits, tunnel = now - self._moved_at, self._limits, self._tunnel
        if tunnel is None:
            if silent > limits.idle_timeout_s:
                self.transport.abort()
        elif self.writing_paused:
            if silent > patience_of(Kind.TUNNEL, limits).taking_s:
                tunnel.end(Unavailable(Reason.UPSTREAM_TIMEOUT, "the far end of the tunnel takes nothing"))
        elif not self._held_back and silent > (limits.idle_timeout_s if tunnel.half_closed else self.idle_s):
            tunnel.end(Denied(Reason.TIMEOUT, "nothing has passed in either direction for too long"))


class RawTunnel:
    """Both directions. ``finished(error)`` is called once: None after both ends have ended, else the reason."""

    __slots__ = ("_caller_ended", "_far", "_finished", "_stream")

    def __init__(self, stream: Stream, far: RawEnd, *, finished: Callable[[SidecarError | None], None]) -> None:
        self._stream = stream
        self._far = far
        self._finished: Callable[[SidecarError | None], None] | None = finished
        self._caller_ended = False

    @property
    def half_closed(self) -> bool:
        """True if one end has sent its FIN."""
        return self._caller_ended or self._far.ended

    def open(self) -> None:
        """Grant the CONNECT, then forward early bytes of both ends."""
        stream = self._stream
        stream.sender = self
        stream.open_tunnel()
        stream.live_as(Kind.TUNNEL, self._far.idle_s)
        self._far.join(self)
        if stream.writing_paused:
            self._far.pause_reading()
        stream.read_body(self)

    def end(self, error: SidecarError) -> None:
        """Cut both ends now."""
        self._finish(error)

    # --- the caller's side

    def on_body(self, data: bytes) -> None:
        """Pass bytes on."""
        self._far.send(data)

    def on_body_flush(self) -> None:
        """Write once per batch."""
        self._far.flush()

    def on_body_end(self) -> None:
        """Pass the caller's FIN on."""
        self._caller_ended = True
        self._far.send_no_more()
        if self._far.ended:
            self._finish(None)

    def on_body_error(self, error: SidecarError) -> None:
        """Never called: raw bytes have no framing."""
        raise AssertionError(error)

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """End: the caller is gone, or was cut off for ``error``."""
        self._finish(error or Denied(Reason.PEER_GONE, "the caller reset the tunnel"))

    def on_caller_pause(self) -> None:
        """Slow the far end down."""
        self._far.pause_reading()

    def on_caller_resume(self) -> None:
        """Resume reading from the far end."""
        self._far.resume_reading()

    # --- the far side

    def on_far_data(self, data: bytes) -> None:
        """Pass bytes back."""
        self._stream.send_data(data)
        self._stream.flush()

    def on_far_end(self) -> None:
        """Pass the far end's FIN back."""
        if self._caller_ended:
            self._finish(None)
        else:
            self._stream.send_no_more()

    def on_far_lost(self) -> None:
        """End: the far end is gone."""
        self._finish(Denied(Reason.UPSTREAM_ABORTED, "the far end of the tunnel was lost"))

    def on_far_pause(self) -> None:
        """Slow the caller down."""
        self._stream.pause_body()

    def on_far_resume(self) -> None:
        """Resume reading from the caller."""
        self._stream.resume_body()

    def _finish(self, error: SidecarError | None) -> None:
        finished, self._finished = self._finished, None
        if finished is None:
            return
        stream = self._stream
        stream.sender = None
        if error is None:
            self._far.leave()
            stream.send_end()
        else:
            self._far.cut_off()
            stream.abort()
        finished(error)
