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

    __slots__ = ("_empty_since", "_had_all", "_pace")

    def __init__(self) -> None:
        self._pace = Pace()
        self._empty_since: float | None = None
        self._had_all: tuple[float, int] | None = None  # when, and how much that was

    def begin(self, now: float) -> None:
        """From now on the peer is waited for."""
        self._pace.begin(now, 0)
        self._empty_since = None

    def before_last_word(self, transport: asyncio.Transport, now: float) -> None:
        """Nothing was written lately, and only TLS's last word will be: who has the rest misses nothing without it.

        A peer whose machine or network is gone acknowledges nothing any more, and would be waited for until it is given
        up, or to the end of a drain.
        """
        acked = acknowledged(transport)
        if acked is not None and _is_empty(transport):
            self._had_all = now, acked

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
        """Seconds since which, whenever asked, nothing was left but a last word; 0 where that cannot be told.

        One look is not enough: between the kernel's queue and what will be put into it there are moments.
        """
        if not _is_empty(transport):
            self._empty_since = None
            return self._silent_s(transport, now)
        if self._empty_since is None:
            self._empty_since = now
        return now - self._empty_since

    def _silent_s(self, transport: asyncio.Transport, now: float) -> float:
        """Seconds since the last word was written, if the peer had everything then and has said nothing since."""
        if self._had_all is None:
            return 0.0
        since, acked = self._had_all
        return now - since if acknowledged(transport) == acked else 0.0


def _is_empty(transport: asyncio.Transport) -> bool:
    return not transport.get_write_buffer_size() and queued(transport) == 0
