"""How a server connection ends: once what was written has left, or after a peer that still sends has had its answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from sidecar.wire.limits import ServerLimits
from sidecar.wire.outflow import Outflow
from sidecar.wire.waits import Linger

_FAREWELL_S: Final = 1.0  # for TLS's last word from a peer that has been given everything, and may be frozen or gone
_SETTLED_S: Final = 0.25  # what was written so long ago is with the kernel, or still fills its queue
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with time 0: closing sends RST


class Ending:
    """The end of one connection. ``clock`` is monotonic seconds.

    ``begun``: no further request is read. ``closed``: nothing is; what was written may still have to leave. ``linger``:
    the answer is written, and what the peer sends is read and thrown away for a while.
    """

    __slots__ = ("_clock", "_limits", "_outflow", "begun", "closed", "linger")

    def __init__(self, limits: ServerLimits, clock: Callable[[], float]) -> None:
        self.begun = False
        self.closed = False
        self.linger: Linger | None = None
        self._limits = limits
        self._clock = clock
        self._outflow = Outflow()

    def begin_lingering(self, transport: asyncio.Transport, *, half_closes: bool) -> None:
        """Answered, but the peer may still be sending: closing now would reset the connection and lose the answer."""
        limits = self._limits
        self.begun = True
        self.linger = Linger(
            self._clock(),
            timeout_s=limits.linger_timeout_s,
            silence_s=None if half_closes else limits.linger_silence_s,
            max_bytes=limits.max_linger_bytes,
        )
        if half_closes and not transport.is_closing():
            end_writing(transport)

    def received(self, transport: asyncio.Transport, now: float, size: int) -> None:
        """The peer still sends, and was answered: that has a limit."""
        if self.linger is not None and not self.linger.received(now, size):
            self.close(transport)

    def close(self, transport: asyncio.Transport, *, idle_s: float = 0.0) -> None:
        """Close once what was written has left. ``idle_s``: since nothing was written any more."""
        if idle_s >= _SETTLED_S:
            self._outflow.before_last_word(transport, self._clock())
        self.stop()
        transport.close()

    def stop(self) -> None:
        """Nothing is read any more."""
        self.gone()
        self.wait_for_peer()

    def gone(self) -> None:
        """The connection is no more."""
        self.begun = self.closed = True

    def reset(self, transport: asyncio.Transport) -> None:
        """End with a reset: the only way to show that an answer without a stated length is not whole."""
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.gone()
        transport.abort()

    def wait_for_peer(self) -> None:
        """From now on the peer has to take what was written."""
        self._outflow.begin(self._clock())

    @property
    def behind_since(self) -> float:
        """Since when a peer that has to take what was written took next to nothing."""
        return self._outflow.behind_since

    def waited_enough(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether the peer takes nothing any more, or has been given everything and does not end."""
        limits, outflow = self._limits, self._outflow
        behind_s = outflow.behind_s(transport, now, limits.min_rate * limits.write_timeout_s)
        all_given = self.closed and outflow.empty_s(transport, now) >= _FAREWELL_S
        return all_given or behind_s > limits.write_timeout_s


def end_writing(transport: asyncio.Transport) -> None:
    """Close our half, once what was written has left. Without effect where the peer has reset the connection unseen."""
    with contextlib.suppress(OSError):  # that is how asyncio says so, and the transport learns it by itself
        transport.write_eof()
