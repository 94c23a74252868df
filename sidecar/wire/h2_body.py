"""Body of an HTTP/2 request: arriving content uses up its window, which opens again as a sink consumes it."""

from __future__ import annotations

from typing import Protocol

from delegation_core.errors import Denied, Reason
from sidecar.wire.stream import BodySink


class Opener(Protocol):
    """The part of a connection that a body needs."""

    def taken(self, stream_id: int, size: int) -> None:
        """Return flow-control credit for consumed content."""


class RequestBody:
    """One body. ``received``: bytes of content; ``expected``: its Content-Length, or None.

    ``ended``: the complete body has arrived. ``dropped``: its content is discarded, and its windows open at once.
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
        self._arrived = bytearray()  # received content, not consumed yet
        self._arrived_size = 0  # its flow-controlled size, padding included
        self._paused = False
        self._held: bytes | None = None

    # --- for its reader

    @property
    def complete(self) -> bool:
        """True if the sink has consumed the whole body, or there is no body."""
        return self.ended and not self._arrived

    @property
    def awaited(self) -> bool:
        """True if a sink waits for bytes that have not arrived."""
        return self._sink is not None and not self._paused and not self.ended

    @property
    def begun(self) -> bool:
        """True if content, or the end of the body, has arrived."""
        return self.ended or bool(self._arrived)

    def read(self, sink: BodySink) -> None:
        """Deliver the body to ``sink``: the received part at once, the rest as it arrives."""
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
        """Return the whole body if it has arrived and has no sink yet; else None."""
        held, self._held = self._held, None
        if held is not None or self._sink is not None or not self.ended or self.dropped:
            return held
        return self._take()

    def hold(self, body: bytes) -> None:
        """Store a body that was read and checked: its next reader gets exactly these bytes."""
        self._held = body

    def pause(self) -> None:
        """Pause delivery; the window fills."""
        self._paused = True

    def resume(self) -> None:
        """Resume delivery."""
        self._paused = False
        self.give()

    def unbind(self) -> None:
        """Lift the size limit of a body without a Content-Length."""
        if self.expected is None:
            self._max_bytes = None

    def drop(self) -> BodySink | None:
        """Discard the body, received and to come, and open its windows. Returns its sink."""
        self.dropped = True
        self._take()
        sink, self._sink = self._sink, None
        return sink

    # --- for its stream

    def receive(self, data: bytes, size: int) -> None:
        """Add content; ``size``: its flow-controlled size, padding included.

        Raises:
            Denied: AMBIGUOUS_FRAMING or TOO_LARGE; never for a dropped body.
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
        """End the body.

        Raises:
            Denied: AMBIGUOUS_FRAMING; never for a dropped body.
        """
        self.ended = self.expected is None or self.received == self.expected
        if not (self.ended or self.dropped):
            raise Denied(Reason.AMBIGUOUS_FRAMING, "the body is shorter than its Content-Length")

    def give(self) -> None:
        """Deliver the received content to the sink."""
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
        """Return the received content, and open the windows again."""
        data = bytes(self._arrived)
        size, self._arrived_size = self._arrived_size, 0
        self._arrived.clear()
        self._opener.taken(self._stream_id, size)
        return data
