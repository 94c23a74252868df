"""Two waits of a connection that is nearly over: for a peer that takes nothing, for one that does not stop. Pure."""

from __future__ import annotations


class Stall:
    """A write buffer that must shrink. ``began_at`` moves on with every byte the peer takes."""

    __slots__ = ("began_at", "size")

    def __init__(self) -> None:
        self.began_at = 0.0
        self.size = 0

    def begin(self, now: float, size: int) -> None:
        """The buffer holds ``size`` bytes that should leave."""
        self.began_at = now
        self.size = size

    def lasts(self, now: float, size: int) -> float:
        """Seconds since the peer last took anything, ``size`` bytes being left now."""
        if size < self.size:
            self.begin(now, size)
        return now - self.began_at


class Linger:
    """What is still read, and thrown away, after an early answer (RFC 9112 section 9.6).

    Closing while the peer still sends would reset the connection, and the peer could lose the answer.
    """

    __slots__ = ("_began_at", "_max_bytes", "_moved_at", "_received", "_silence_s", "_timeout_s")

    def __init__(self, now: float, *, timeout_s: float, silence_s: float | None, max_bytes: int) -> None:
        self._began_at = self._moved_at = now
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
        return silent or now - self._began_at > self._timeout_s
