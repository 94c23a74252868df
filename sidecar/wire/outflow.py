"""What was written and not taken by the peer yet, wherever it waits: with us, in a transport, or with the kernel.

A transport's write buffer is not the whole of it. A TLS transport does not count what the transport beneath it holds,
and none counts the kernel's queue, which may be megabytes. Closing for good throws away the former, and a reset both.
So what has moved is what the peer's kernel acknowledged, where ours says (Linux); elsewhere it is what left the buffer.
"""

from __future__ import annotations

import asyncio

from sidecar.wire.kernel import acknowledged, queued
from sidecar.wire.waits import Pace


class Outflow:
    """How fast a peer takes what it is behind with, and since when there is nothing left that it could take.

    ``begin`` when it falls behind, and after the last write; then ask at each sweep. Times are monotonic seconds.
    """

    __slots__ = ("_empty_since", "_pace")

    def __init__(self) -> None:
        self._pace = Pace()
        self._empty_since: float | None = None

    def begin(self, now: float) -> None:
        """From now on the peer is waited for."""
        self._pace.begin(now, 0)
        self._empty_since = None

    @property
    def behind_since(self) -> float:
        """Since when next to nothing moved, as of the last time that was asked."""
        return self._pace.began_at

    def behind_s(self, transport: asyncio.Transport, now: float, enough: float) -> float:
        """Seconds since ``enough`` bytes moved."""
        moved = acknowledged(transport)
        if moved is None:
            moved = -transport.get_write_buffer_size()
        return self._pace.lasts(now, moved, enough)

    def empty_s(self, transport: asyncio.Transport, now: float) -> float:
        """Seconds since which, whenever asked, nothing was left anywhere; 0 where that cannot be told.

        One look is not enough: between the kernel's queue and what will be put into it there are moments.
        """
        if transport.get_write_buffer_size() or queued(transport) != 0:
            self._empty_since = None
            return 0.0
        if self._empty_since is None:
            self._empty_since = now
        return now - self._empty_since
