"""Order of work in the event loop: fair queueing of buffered input, and one batch of writes for each iteration.

Fair queueing. A peer may pipeline thousands of requests (RFC 9112 section 9.3.2), and one read holds all of them.
Served in one go, they would delay every other peer. So only the first is served with the bytes that brought it; those
behind it wait for a turn, and each peer gets one turn per event-loop iteration, however many connections it opens. The
same holds for tens of thousands of tiny chunks or frames in one read: a few hundred are parsed, the rest waits.

Batched writes. A write wakes its reader, on an idle core by an interrupt: with 32 concurrent requests that was a fifth
of a warm request's cost. Deferred to the end of the iteration, writes follow each other closely and wake each reader
once. A batch is small, so that no answer waits long for another request to be served (ADR 0027).
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

Turn = Callable[[], None]


class FairQueue:
    """Queue of turns at one listener. Each ``take`` is called once, in a later event-loop iteration."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Turn]] = {}
        self._round: asyncio.Handle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, group: Hashable, take: Turn) -> None:
        """Queue a turn behind those of the same group."""
        self._waiting.setdefault(group, deque()).append(take)
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._round = None
        waiting, self._waiting = self._waiting, {}
        for group, turns in waiting.items():
            take = turns.popleft()
            if turns:  # before turns that are queued meanwhile
                self._waiting[group] = turns
            take()
        if self._waiting and self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next)


# Many programs write the head of a message and its body one after the other: the native engine waits for a body.
REST_S: Final = 0.005
MOST_TOGETHER: Final = 32  # the first of them has waited for as many requests to be served: about a millisecond
_MAX_DEFERRED: Final = 16 * 1024  # bytes; a longer write is worth a system call of its own

_log: Final = logging.getLogger("sidecar.wire")


class WriteBatch:
    """Batch of the writes of one side's connections, in their order. ``most`` is its size; 1 disables batching.

    Code that ends a connection, or one direction of it, calls ``write_all`` first.
    """

    __slots__ = ("_most", "_most_alone", "_waiting")

    def __init__(self, most: int = MOST_TOGETHER) -> None:
        self._most = most
        self._most_alone = _MAX_DEFERRED if most > 1 else -1  # bytes of the first one
        self._waiting: deque[tuple[asyncio.Transport, bytes]] = deque()

    def defer(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write by the end of this event-loop iteration."""
        waiting = self._waiting
        if waiting:
            waiting.append((transport, data))
            if len(waiting) >= self._most or len(data) > _MAX_DEFERRED:
                self.write_all()
            return
        waiting.append((transport, data))
        if len(data) > self._most_alone:
            self.write_all()
        else:
            get_running_loop().call_soon(self.write_all)

    def write_all(self) -> None:
        """Write the whole batch. Data for a closed connection is dropped.

        A write may pause its connection, and the callback may end one and call this again: the inner call continues
        with the batch, so that nothing is left to write after that end.
        """
        waiting = self._waiting
        while waiting:
            transport, data = waiting.popleft()
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception:  # noqa: BLE001  a bug costs the connection it is in, and not the others
                _log.exception("a write failed")
                transport.abort()
