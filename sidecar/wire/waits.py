"""What a connection waits for: bytes that move too slowly, and a peer that does not stop. Pure."""

from __future__ import annotations


class Pace:
    """Bytes that must move: ``enough`` of them within each period, so that nobody holds a connection by single bytes.

    ``began_at``: since when they have not.
    """

    __slots__ = ("began_at", "moved")

    def __init__(self) -> None:
        self.began_at = 0.0
        self.moved = 0

    def begin(self, now: float, moved: int) -> None:
        """From now on; ``moved`` bytes have moved before. Any number will do that grows by each byte."""
        self.began_at = now
        self.moved = moved

    def lasts(self, now: float, moved: int, enough: float) -> float:
        """Seconds since ``enough`` bytes moved, ``moved`` in all being there now. Fewer than before is no progress."""
        if moved < self.moved:
            self.moved = moved
        elif moved - self.moved >= enough:
            self.begin(now, moved)
        return now - self.began_at


class Linger:
    """What is still read, and thrown away, after an early answer (RFC 9112 section 9.6).

    Closing while the peer still sends would reset the connection, and the peer could lose the answer.
    """

    __slots__ = ("_max_bytes", "_moved_at", "_received", "_silence_s", "_timeout_s", "began_at")

    def __init__(self, now: float, *, timeout_s: float, silence_s: float | None, max_bytes: int) -> None:
        self.began_at = self._moved_at = now
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._max_bytes = max_bytes
        self._received = 0

    def received(self, now: float, size: int) -> bool:
        """Count bytes; False when they were too many."""
        self._moved_at = now
        self._received += size
        return self._received <= self._max_bytes

    def over(self, now: float) -> bool:
        """Whether to close now."""
        silent = self._silence_s is not None and now - self._moved_at > self._silence_s
        return silent or now - self.began_at > self._timeout_s
