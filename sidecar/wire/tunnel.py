"""Tunnel: a stream that has switched to WebSocket and its upstream, joined byte for byte.

Content is neither judged nor unpacked. Back-pressure and deadlines come from the two connections: they end a tunnel
whose one end reads nothing, or whose both ends are silent. When the sidecar must end a tunnel, it sends both ends a
Close frame with code 1001 (going away) at the end of a frame; an end inside a long frame has ``GOODBYE_S`` to finish
it.

Bytes are forwarded as they arrive. Their frames are parsed some hundred at a time: the rest is parsed in a later turn,
and reading from the sender pauses until then. The end of a tunnel waits for that parsing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire.message import Response
from sidecar.wire.stream import Stream
from sidecar.wire.websocket import GOING_AWAY, Frames, close_frame

if TYPE_CHECKING:
    from sidecar.wire.upstream import Upstream

GOODBYE_S: Final = 0.5  # a withdrawn authority ends everything within a second, and is noticed within 0.25 s
_LAST_WORDS_S: Final = 2.0  # for the upstream's last data, after the caller has ended its half


class _Lane:
    """One direction. ``over``: it has ended with a Close frame or the caller's FIN."""

    __slots__ = ("_goodbye", "_unfollowed", "frames", "over")

    def __init__(self) -> None:
        self.frames = Frames()
        self.over = False
        self._goodbye: bytes | None = None
        self._unfollowed = b""

    @property
    def behind(self) -> bool:
        """True if forwarded bytes are not parsed yet, so that the start of the next frame is unknown."""
        return bool(self._unfollowed)

    @property
    def closed(self) -> bool:
        """True if this end has sent a whole Close frame."""
        return self.frames.closed and self.frames.at_boundary

    def take(self, data: bytes) -> bytes:
        """Return the bytes to forward: all of them, or up to our Close frame."""
        if self.over:
            return b""
        if self._unfollowed:
            self._unfollowed += data
            return data
        if self._goodbye is None:
            self._unfollowed = self.frames.follow(data)
            return data
        boundary = self.frames.first_boundary(data)
        return data if boundary < 0 else data[:boundary] + self._say(self._goodbye)

    def end(self, goodbye: bytes) -> bytes:
        """Schedule ``goodbye`` for the next end of a frame; return the bytes to send now."""
        if self.over:
            return b""
        if self.frames.at_boundary and not self._unfollowed:
            return self._say(goodbye)
        self._goodbye = goodbye
        return b""

    def catch_up(self) -> bytes:
        """Parse more of the forwarded bytes; return the bytes to send now."""
        self._unfollowed = self.frames.follow(self._unfollowed)
        return b"" if self._goodbye is None else self.end(self._goodbye)

    def _say(self, goodbye: bytes) -> bytes:
        self.over = True
        return b"" if self.frames.closed else goodbye


class Tunnel:
    """Both directions. ``finished(error)`` is called once: None after an orderly end, one with a Close frame."""

    __slots__ = ("_finished", "_left", "_reason", "_stream", "_timer", "_to_caller", "_to_upstream", "upstream")

    def __init__(self, stream: Stream, upstream: Upstream, *, finished: Callable[[SidecarError | None], None]) -> None:
        self.upstream = upstream.switch_protocols(self)
        self._stream = stream
        self._finished: Callable[[SidecarError | None], None] | None = finished
        self._to_caller = _Lane()
        self._to_upstream = _Lane()
        self._reason: SidecarError | None = None
        self._left: SidecarError | None = None  # set when one end has left, with unparsed frames
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin, with the bytes that came early."""
        stream = self._stream
        stream.sender = self
        stream.read_body(self)

    def end(self, error: SidecarError) -> None:
        """End the tunnel for ``error``: send both ends a Close frame, then close."""
        if self._reason is not None or self._left is not None or self._finished is None:
            return
        self._reason = error
        self._say_goodbye(error.reason)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(GOODBYE_S, self._give_up)
        self._finish_if_over()

    def cut(self) -> None:
        """End the tunnel now. An end that is not inside a frame gets a Close frame."""
        if self._finished is None:
            return
        self._say_goodbye("")
        self._hang_up()

    # --- the caller's side

    def on_body(self, data: bytes) -> None:
        """Pass bytes on."""
        lane = self._to_upstream
        caught_up = not lane.behind
        self.upstream.send_body(lane.take(data))
        if lane.behind and caught_up:
            self._stream.pause_body()
            self._stream.let_others_first(self._follow_caller)

    def on_body_flush(self) -> None:
        """Write once per batch."""
        self.upstream.flush()
        self._finish_if_over()

    def on_body_end(self) -> None:
        """Handle the caller's FIN. The caller still reads, so the upstream may finish for a while."""
        if self.upstream.send_no_more():
            self._to_upstream.over = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self.on_caller_gone)

    def on_body_error(self, error: SidecarError) -> None:
        """Never called: raw bytes have no framing."""
        raise AssertionError(error)

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """Pass on what the caller has sent, and end."""
        self._finish(error or Denied(Reason.PEER_GONE, "the caller left without a Close frame"))

    def on_caller_pause(self) -> None:
        """Slow the upstream down."""
        self.upstream.pause_reading()

    def on_caller_resume(self) -> None:
        """Resume reading from the upstream."""
        if not (self._to_caller.behind or self._left):
            self.upstream.resume_reading()

    # --- the upstream's side

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Never called: a tunnel follows the answer."""
        raise AssertionError(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Never called: a tunnel follows the answer."""
        raise AssertionError(head, data)

    def on_response_data(self, data: bytes) -> None:
        """Pass bytes back."""
        lane = self._to_caller
        caught_up = not lane.behind
        self._stream.send_data(lane.take(data))
        if lane.behind and caught_up:
            self.upstream.pause_reading()
            self.upstream.let_others_first(self._follow_upstream)

    def on_response_flush(self) -> None:
        """Write once per batch."""
        self._stream.flush()
        self._finish_if_over()

    def on_response_end(self) -> None:
        """End the tunnel after the upstream's FIN. What it has sent still passes."""
        self._finish(Denied(Reason.UPSTREAM_ABORTED, "the upstream left without a Close frame"))

    def on_response_error(self, error: SidecarError) -> None:
        """End the tunnel after a failure of the upstream's connection."""
        self._finish(error)

    def on_upstream_pause(self) -> None:
        """Slow the caller down."""
        self._stream.pause_body()

    def on_upstream_resume(self) -> None:
        """Resume reading from the caller."""
        if not (self._to_upstream.behind or self._left):
            self._stream.resume_body()

    def on_silence(self) -> None:
        """End a silent tunnel."""
        self.end(Denied(Reason.TIMEOUT, "nothing has passed in either direction for too long"))

    # --- frames that have passed and are parsed later

    def _follow_caller(self) -> None:
        if self._finished is None:
            return
        self.upstream.send_body(self._to_upstream.catch_up())
        if self._to_upstream.behind:
            self._stream.let_others_first(self._follow_caller)
            return
        self.upstream.flush()
        if not self.upstream.writing_paused:
            self.on_upstream_resume()
        self._caught_up()

    def _follow_upstream(self) -> None:
        if self._finished is None:
            return
        self._stream.send_data(self._to_caller.catch_up())
        if self._to_caller.behind:
            self.upstream.let_others_first(self._follow_upstream)
            return
        self._stream.flush()
        if not self._stream.writing_paused:
            self.on_caller_resume()
        self._caught_up()

    def _caught_up(self) -> None:
        if self._left is not None:
            self._finish(self._left)
        else:
            self._finish_if_over()

    # --- the end

    def _say_goodbye(self, reason: str) -> None:
        self._stream.send_data(self._to_caller.end(close_frame(GOING_AWAY, reason, masked=False)))
        self.upstream.send_body(self._to_upstream.end(close_frame(GOING_AWAY, reason, masked=True)))
        self._stream.flush()
        self.upstream.flush()

    def _finish_if_over(self) -> None:
        if self._to_caller.over and self._to_upstream.over:
            self._finish(None)

    def _give_up(self) -> None:
        self._finish(None)

    def _finish(self, error: SidecarError | None) -> None:
        """Close and report the end: as requested, in order, or for ``error``."""
        if error is not None and self._reason is None and (self._to_caller.behind or self._to_upstream.behind):
            self._left = self._left or error
            self._stream.pause_body()
            self.upstream.pause_reading()
            return
        finished = self._hang_up()
        if finished is not None:
            orderly = self._to_caller.closed or self._to_upstream.closed
            finished(self._reason or (None if orderly else error))

    def _hang_up(self) -> Callable[[SidecarError | None], None] | None:
        """Close both ends after their pending data. Inside a frame this shows as a truncated frame."""
        finished, self._finished = self._finished, None
        if finished is None:
            return None
        if self._timer is not None:
            self._timer.cancel()
        stream = self._stream
        stream.sender = None
        self.upstream.leave()
        stream.send_end()
        return finished
