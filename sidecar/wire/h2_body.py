"""Body of an HTTP/2 request: content that arrives fills its window, which opens again as a sink takes it."""

from __future__ import annotations

from typing import Protocol

from sidecar.errors import Denied, Reason
from sidecar.wire.stream import BodySink


class Opener(Protocol):
    """The connection of a body, as far as the body needs it."""

    def taken(self, stream_id: int, size: int) -> None:
        """Open the windows again by content that has left."""


class RequestBody:
    """One body. ``received`` counts its content, and ``expected`` is its Content-Length, if there is one.

    ``ended``: all of it has come, as much as its head says. ``dropped``: nobody reads it, and the windows open as
    content comes.
    """

    __slots__ = (
        "_arrived",
        "_arrived_size",
        "_held",
        "_max_bytes",
        "_opener",
        "_paused",
        "_sink",
        "_stream_id",
        "dropped",
        "ended",
        "expected",
        "received",
    )

    def __init__(self, opener: Opener, stream_id: int, *, max_bytes: int) -> None:
        self.dropped = False
        self.ended = False
        self.expected: int | None = None
        self.received = 0
        self._opener = opener
        self._stream_id = stream_id
        self._max_bytes: int | None = max_bytes
        self._sink: BodySink | None = None
        self._arrived = bytearray()  # content that nobody has taken
        self._arrived_size = 0  # that, as windows count it: with padding
        self._paused = False
        self._held: bytes | None = None

    # --- for its reader

    @property
    def complete(self) -> bool:
        """Tell if there is none, or if all of it was taken."""
        return self.ended and not self._arrived

    @property
    def awaited(self) -> bool:
        """Tell if a sink waits for bytes that have not come."""
        return self._sink is not None and not self._paused and not self.ended

    @property
    def begun(self) -> bool:
        """Tell if some of it, or its end, has come."""
        return self.ended or bool(self._arrived)

    def read(self, sink: BodySink) -> None:
        """Give it to ``sink``: what has come at once, the rest as it comes."""
        held, self._held = self._held, None
        if held is None:
            self._sink = sink
            self.give()
            return
        if held:
            sink.on_body(held)
        sink.on_body_end()
        sink.on_body_flush()

    def take_whole(self) -> bytes | None:
        """Return all of it, if it has come and has no sink yet; else None."""
        held, self._held = self._held, None
        if held is not None or self._sink is not None or not self.ended or self.dropped:
            return held
        return self._take()

    def hold(self, body: bytes) -> None:
        """Hold bytes that were read and judged: its next reader gets exactly these."""
        self._held = body

    def pause(self) -> None:
        """Give nothing for now: its window fills."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self.give()

    def unbind(self) -> None:
        """Let a body without a Content-Length have any length."""
        if self.expected is None:
            self._max_bytes = None

    def drop(self) -> BodySink | None:
        """Read it no more, and open the windows by all that has come and will come. Return its sink."""
        self.dropped = True
        self._take()
        sink, self._sink = self._sink, None
        return sink

    # --- for its stream

    def receive(self, data: bytes, size: int) -> None:
        """Take content; ``size`` is what it counts for windows.

        Raises:
            Denied: AMBIGUOUS_FRAMING or TOO_LARGE, of a body that is not dropped.
        """
        self.received += len(data)
        self._arrived_size += size
        if self.dropped:
            self._take()
        elif self.expected is not None and self.received > self.expected:
            raise Denied(Reason.AMBIGUOUS_FRAMING, "the body is longer than its Content-Length")
        elif self._max_bytes is not None and self.received > self._max_bytes:
            raise Denied(Reason.TOO_LARGE, "the body is larger than allowed")
        else:
            self._arrived += data

    def end(self) -> None:
        """Take its end.

        Raises:
            Denied: AMBIGUOUS_FRAMING, of a body that is not dropped.
        """
        self.ended = self.expected is None or self.received == self.expected
        if not (self.ended or self.dropped):
            raise Denied(Reason.AMBIGUOUS_FRAMING, "the body is shorter than its Content-Length")

    def give(self) -> None:
        """Give the sink what has come."""
        sink = self._sink
        if sink is None or self._paused:
            return
        if self._arrived_size:
            data = self._take()
            if data:
                sink.on_body(data)
        if self.complete and self._sink is sink and not self._paused:
            self._sink = None
            sink.on_body_end()
        sink.on_body_flush()

    def _take(self) -> bytes:
        """Return the content that has come, and open the windows by it."""
        data = bytes(self._arrived)
        size, self._arrived_size = self._arrived_size, 0
        self._arrived.clear()
        self._opener.taken(self._stream_id, size)
        return data
