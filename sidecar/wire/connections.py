"""The live connections of one side, and the one coarse clock that drives all their deadlines.

A timer per request would cost more than the request. So every connection writes down when it last moved, and a sweep
asks each of them whether it has waited too long; a deadline fires up to ``interval_s`` late. A turn of the loop asks at
most ``SWEPT_IN_A_TURN``: a sweep of thousands at once would keep requests waiting for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from sidecar.wire.turns import Turns
from sidecar.wire.writes import MOST_TOGETHER, Writes

SWEPT_IN_A_TURN: Final = 64


class Swept(Protocol):
    """What can be asked whether it has waited too long."""

    def sweep(self, now: float) -> None:
        """Act on every deadline that has passed at ``now`` (monotonic seconds)."""


C = TypeVar("C", bound=Swept)


class Connections(Generic[C]):
    """A set of live connections, swept while it is not empty.

    ``draining``: the next answer on each connection is its last, and says so; but requests that waited behind it when
    the drain began are served for ``patience_s``, since nobody told their caller before. One on which no request comes
    is idle for ``grace_s`` more: a request that is under way to us must not meet a closed door.
    ``most_together``: so many writes of theirs are put off at most; 1: none is.
    """

    def __init__(
        self,
        *,
        interval_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        most_together: int = MOST_TOGETHER,
    ) -> None:
        self.clock = clock
        self.turns = Turns()
        self.writes = Writes(most_together)
        self.draining = False
        self._draining_since = 0.0
        self._grace_s = 0.0
        self._patient_until = 0.0
        self._interval_s = interval_s
        self._members: set[C] = set()
        self._timer: asyncio.Handle | None = None  # of the next sweep, or of the next part of this one
        self._to_sweep: Iterator[C] = iter(())
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._members))

    def add(self, connection: C) -> None:
        """Watch a connection from now on."""
        self._members.add(connection)
        self._empty.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def discard(self, connection: C) -> None:
        """Forget a connection that is gone."""
        self._members.discard(connection)
        if not self._members:
            self._empty.set()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def drain(self, grace_s: float, patience_s: float = float("inf")) -> None:
        """From now on nobody is kept."""
        if not self.draining:
            self.draining = True
            self._draining_since = self.clock()
            self._grace_s = grace_s
            self._patient_until = self._draining_since + patience_s

    def may_stay(self, *, waiting_since: float) -> bool:
        """Whether a connection is kept, though it drains, for a request that is here since then."""
        return waiting_since <= self._draining_since and self.clock() < self._patient_until

    def no_longer_wanted(self, now: float, idle_since: float) -> bool:
        """Whether a connection that is idle since then has been given its grace."""
        return self.draining and now - max(idle_since, self._draining_since) >= self._grace_s

    def group_of(self, _connection: C) -> Hashable:
        """With whom a connection shares one turn, where requests wait behind each other: all with all."""
        return None

    def sweep(self) -> None:
        """Ask every connection now."""
        now = self.clock()
        for connection in self:
            connection.sweep(now)

    async def wait_for_empty(self) -> None:
        """Return when the last connection is gone. The caller sets the deadline."""
        await self._empty.wait()

    def _tick(self) -> None:
        self._to_sweep = iter(self)
        self._sweep_some()

    def _sweep_some(self) -> None:
        loop = asyncio.get_running_loop()
        some = tuple(islice(self._to_sweep, SWEPT_IN_A_TURN))
        if len(some) < SWEPT_IN_A_TURN:
            self._timer = loop.call_later(self._interval_s, self._tick)
        else:
            self._timer = loop.call_soon(self._sweep_some)
        now = self.clock()
        for connection in some:
            if connection in self._members:
                connection.sweep(now)
