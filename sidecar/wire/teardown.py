"""End of a server connection: the states it passes through, who asks for the end, and how it is carried out.

States (``Phase``), in order; a connection never goes back:

    OPEN -> LAST -> REFUSED -> LINGERING -> CLOSING        any but the first may be left out

Who asks for it:

| cause | what happens |
| --- | --- |
| an answer that says ``Connection: close`` has been written | linger if the peer may still be sending, else close |
| a head is refused | REFUSED: the refusal is the last answer; then linger |
| an answer that ends while its request's body is unread | linger |
| an answer that is cut (``H1Stream.abort``) | close, or reset if the answer stated no length |
| ``finish`` (drain) | LAST; an idle connection closes |
| ``stop`` (shutdown), ``give_way`` (eviction) | stop the stream or refuse a begun head; finish, or cut off |
| ``give_up`` (end of a drain) | cut off, unless a request is being read or served |
| a deadline (``ServerConnection.sweep``): no head, no body, idle, too old | refuse, fail the body, close |
| the peer takes too little of what was written | cut off |
| the peer ends its side, or the transport is lost | CLOSING: the stream in progress is notified |

How: ``close`` sends the written data and ``close_notify``. ``begin_lingering`` half-closes where it can (no
TLS), reads and discards for a while, then closes: closing while the peer sends would reset the connection, and the
peer could lose the answer (RFC 9112 section 9.6). ``reset`` sends RST, the only way to show that an answer without a
stated length is incomplete. ``cut_off`` aborts: data already in the kernel is still sent.

Outflow. A transport's write buffer is not all that waits: a TLS transport does not count what the transport beneath it
holds, and none counts the kernel's queue, which may be megabytes. Closing discards the former, a reset both. So
progress is measured by the bytes that the peer's kernel acknowledged (Linux), elsewhere by the bytes that left the
buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from sidecar.wire.kernel import acknowledged, queued
from sidecar.wire.limits import ServerLimits

WAITS_S: Final = 2.0  # without a byte read, before an answer counts as waiting for its peer
MANY_WAIT: Final = "too many answers wait for this peer: connections.max_waiting_per_peer"


class Pace:
    """Progress of bytes: ``enough`` of them must move within each period, so that single bytes keep no connection open.

    ``began_at`` is the start of the current period.
    """

    __slots__ = ("began_at", "moved")

    def __init__(self) -> None:
        self.began_at = 0.0
        self.moved = 0

    def begin(self, now: float, moved: int) -> None:
        """Start a period; ``moved`` bytes have moved before. Any counter of bytes will do."""
        self.began_at = now
        self.moved = moved

    def lasts(self, now: float, moved: int, enough: float) -> float:
        """Return the seconds since ``enough`` bytes moved. ``moved``: the counter; a lower value is not progress."""
        if moved < self.moved:
            self.moved = moved
        elif moved - self.moved >= enough:
            self.begin(now, moved)
        return now - self.began_at


class Linger:
    """Input that is read and discarded after an early answer, within limits of time and bytes."""

    __slots__ = ("_max_bytes", "_moved_at", "_received", "_silence_s", "_timeout_s", "began_at")

    def __init__(self, now: float, *, timeout_s: float, silence_s: float | None, max_bytes: int) -> None:
        self.began_at = self._moved_at = now
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._max_bytes = max_bytes
        self._received = 0

    def received(self, now: float, size: int) -> bool:
        """Count bytes. False if above the limit."""
        self._moved_at = now
        self._received += size
        return self._received <= self._max_bytes

    def over(self, now: float) -> bool:
        """True if lingering has lasted long enough."""
        silent = self._silence_s is not None and now - self._moved_at > self._silence_s
        return silent or now - self.began_at > self._timeout_s


class Outflow:
    """Progress of written data: the rate at which a peer reads it, and the time since the peer has all of it.

    ``begin`` when the peer falls behind, and after the last write; then ask at each sweep. Times are monotonic seconds.
    """

    __slots__ = ("_empty_since", "_had_all", "_pace", "_silence")

    def __init__(self) -> None:
        self._pace = Pace()
        self._silence = Pace()
        self._empty_since: float | None = None
        self._had_all: tuple[float, int] | None = None  # the time when the peer had everything, and the amount

    def begin(self, now: float) -> None:
        """Start to wait for the peer."""
        self._pace.begin(now, 0)
        self._silence.begin(now, 0)
        self._empty_since = None

    def before_close_notify(self, transport: asyncio.Transport, now: float) -> None:
        """Note that only ``close_notify`` remains: a peer that has the rest loses nothing if it never arrives.

        A peer whose machine or network is gone acknowledges nothing any more, and would delay a drain to its end.
        """
        acked = acknowledged(transport)
        if acked is not None and _is_empty(transport):
            self._had_all = now, acked

    @property
    def behind_since(self) -> float:
        """Start of the period without progress, as of the last check."""
        return self._pace.began_at

    def behind_s(self, transport: asyncio.Transport, now: float, enough: float) -> float:
        """Seconds since ``enough`` bytes moved."""
        return self._pace.lasts(now, _moved(transport), enough)

    def silent_s(self, transport: asyncio.Transport, now: float) -> float:
        """Seconds since any byte moved."""
        return self._silence.lasts(now, _moved(transport), 1)

    def empty_s(self, transport: asyncio.Transport, now: float) -> float:
        """Seconds in which, at every check, only ``close_notify`` was left to send; 0 if unknown.

        One check is not enough: data moves between the transport's buffer and the kernel's queue.
        """
        if not _is_empty(transport):
            self._empty_since = None
            return self._silent_s(transport, now)
        if self._empty_since is None:
            self._empty_since = now
        return now - self._empty_since

    def _silent_s(self, transport: asyncio.Transport, now: float) -> float:
        """Seconds since ``close_notify`` was written, if the peer had everything else by then and is silent since."""
        if self._had_all is None:
            return 0.0
        since, acked = self._had_all
        return now - since if acknowledged(transport) == acked else 0.0


def _moved(transport: asyncio.Transport) -> int:
    moved = acknowledged(transport)
    return -transport.get_write_buffer_size() if moved is None else moved


def _is_empty(transport: asyncio.Transport) -> bool:
    return not transport.get_write_buffer_size() and queued(transport) == 0


_FAREWELL_S: Final = 1.0  # for the close_notify of a peer that has everything, and may be frozen or gone
_SETTLED_S: Final = 0.25  # data written this long ago has reached the kernel, or still fills its queue
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with time 0: closing sends RST


class Phase(IntEnum):
    """Phases of a server connection, in order: it never goes back to an earlier one."""

    OPEN = 0  # further requests are served
    LAST = 1  # the request being read or served, if any, is the last
    REFUSED = 2  # a head was refused: what follows it is never read as a request
    LINGERING = 3  # the last answer is written; input is discarded
    CLOSING = 4  # nothing is read; written data may still be sending


class Teardown:
    """The end of one connection. ``clock`` is monotonic seconds. ``linger`` is set once it lingers."""

    __slots__ = ("_clock", "_limits", "_outflow", "linger", "phase")

    def __init__(self, limits: ServerLimits, clock: Callable[[], float]) -> None:
        self.phase = Phase.OPEN
        self.linger: Linger | None = None
        self._limits = limits
        self._clock = clock
        self._outflow = Outflow()

    def enter(self, phase: Phase) -> None:
        """Enter a phase. No effect if a later one was entered."""
        self.phase = max(self.phase, phase)

    def begin_lingering(self, transport: asyncio.Transport, *, half_closes: bool) -> None:
        """Read and discard input for a while: the last answer is written, but the peer may still be sending."""
        limits = self._limits
        self.enter(Phase.LINGERING)
        self.linger = Linger(
            self._clock(),
            timeout_s=limits.linger_timeout_s,
            silence_s=None if half_closes else limits.linger_silence_s,
            max_bytes=limits.max_linger_bytes,
        )
        if half_closes and not transport.is_closing():
            end_writing(transport)

    def received(self, transport: asyncio.Transport, now: float, size: int) -> None:
        """Count input that is discarded, and close past its limit."""
        if self.linger is not None and not self.linger.received(now, size):
            self.close(transport)

    def close(self, transport: asyncio.Transport, *, idle_s: float = 0.0) -> None:
        """Close when the written data has been sent. ``idle_s``: seconds without a write."""
        if idle_s >= _SETTLED_S:
            self._outflow.before_close_notify(transport, self._clock())
        self.stop()
        transport.close()

    def stop(self) -> None:
        """Stop reading, and wait until the peer has read the written data."""
        self.enter(Phase.CLOSING)
        self.wait_for_peer()

    def cut_off(self, transport: asyncio.Transport) -> None:
        """End at once. Data already in the kernel is still sent."""
        self.enter(Phase.CLOSING)
        transport.abort()

    def reset(self, transport: asyncio.Transport) -> None:
        """End with a reset: the only way to show that an answer without a stated length is incomplete."""
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.cut_off(transport)

    def wait_for_peer(self) -> None:
        """Start the deadline for the peer to read the written data."""
        self._outflow.begin(self._clock())

    @property
    def behind_since(self) -> float:
        """Start of the period in which the peer read almost nothing."""
        return self._outflow.behind_since

    def silent_s(self, transport: asyncio.Transport, now: float) -> float:
        """Return the seconds since the peer read a byte. Call it at each sweep."""
        return self._outflow.silent_s(transport, now)

    def waited_enough(self, transport: asyncio.Transport, now: float, *, idle_s: float | None = None) -> bool:
        """True if the peer has stopped reading, or has everything and does not close.

        ``idle_s`` is the longest silence of a stream that stays open, where any byte counts.
        """
        limits, outflow = self._limits, self._outflow
        behind_s = outflow.behind_s(transport, now, limits.min_rate * limits.write_timeout_s)
        all_given = self.phase is Phase.CLOSING and outflow.empty_s(transport, now) >= _FAREWELL_S
        if idle_s is not None:
            return all_given or outflow.silent_s(transport, now) > idle_s
        return all_given or behind_s > limits.write_timeout_s


def end_writing(transport: asyncio.Transport) -> None:
    """Close our half once the written data is sent. Does nothing if the peer has reset the connection."""
    with contextlib.suppress(OSError):  # asyncio's way to report it; the transport learns it by itself
        transport.write_eof()
