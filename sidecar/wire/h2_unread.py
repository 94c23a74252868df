"""Bodies of requests answered before their end: the rest is discarded, within limits.

An immediate reset could cost the peer the answer. A malformed rest still resets the stream.
"""

from __future__ import annotations

from typing import Final

from sidecar.wire.h2_frames import Code

MAX_DISCARDED: Final = 64 * 1024  # bytes of a body, with those before its answer


class UnreadBody:
    """One body: ``received`` so far, ``expected`` by its Content-Length if there is one, and when it was answered."""

    __slots__ = ("answered_at", "expected", "received")

    def __init__(self, received: int, expected: int | None, answered_at: float) -> None:
        self.received = received
        self.expected = expected
        self.answered_at = answered_at

    def fits(self, *, ended: bool) -> bool:
        """True if the received bytes agree with the Content-Length."""
        if self.expected is None:
            return True
        return self.received == self.expected if ended else self.received <= self.expected


class UnreadBodies:
    """The unread bodies of one connection, at most ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bodies: dict[int, UnreadBody] = {}

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._bodies

    def add(self, stream_id: int, body: UnreadBody) -> bool:
        """Begin to discard a body. False if there are too many."""
        if len(self._bodies) >= self._most:
            return False
        self._bodies[stream_id] = body
        return True

    def receive(self, stream_id: int, size: int, *, ends: bool) -> int | None:
        """Count content that is discarded, or the end of the body.

        Return the code to reset its stream with; None for no reset, or if no body of that stream is here.
        """
        body = self._bodies.get(stream_id)
        if body is None:
            return None
        body.received += size
        code: int | None = None
        if not body.fits(ended=ends):
            code = Code.PROTOCOL_ERROR
        elif not ends and body.received > MAX_DISCARDED:
            code = Code.NO_ERROR
        if ends or code is not None:
            self.forget(stream_id)
        return code

    def late(self, now: float, allowed_s: float) -> list[int]:
        """Remove the bodies not complete in ``allowed_s``; return their streams."""
        late = [stream_id for stream_id, body in self._bodies.items() if now - body.answered_at > allowed_s]
        for stream_id in late:
            self.forget(stream_id)
        return late

    def forget(self, stream_id: int) -> None:
        """Remove a body, if present."""
        self._bodies.pop(stream_id, None)

    def clear(self) -> None:
        """Remove all bodies."""
        self._bodies.clear()
