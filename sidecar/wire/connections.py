"""Registry of the live connections of one side, and the one coarse clock behind all their deadlines.

A timer for each request would cost more than the request. So every connection notes its last progress, and a periodic
sweep checks the deadlines; a deadline fires up to ``interval_s`` late. An event-loop iteration sweeps at most
``SWEPT_AT_ONCE`` connections: sweeping thousands at once would delay requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from sidecar.wire.scheduling import MOST_TOGETHER, FairQueue, WriteBatch

SWEPT_AT_ONCE: Final = 64


class Swept(Protocol):
    """A connection with deadlines."""

    def sweep(self, now: float) -> None:
        """Act on every deadline that has passed at ``now`` (monotonic seconds)."""


class Answered(Protocol):
    """A request whose peer may read its answer slowly."""

    @property
    def behind(self) -> bool:
        """True if part of the answer waits until the peer reads."""


C = TypeVar("C", bound=Swept)


class Connections(Generic[C]):
    """A set of live connections, swept while it is not empty.

    ``draining``: the next answer on each connection is its last, and announces the close. Requests queued behind it
    when the drain began are served for ``patience_s``, because their caller had no notice. An idle connection stays
    open for ``grace_s``: a request may be on its way. ``most_together`` is the size of a batch of writes; 1 disables
    batching.
    """

    __slots__ = (
        "_draining_since",
        "_empty",
        "_grace_s",
        "_interval_s",
        "_members",
        "_patient_until",
        "_timer",
        "_to_sweep",
        "clock",
        "draining",
        "turns",
        "writes",
    )

    def __init__(
        self,
        *,
        interval_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        most_together: int = MOST_TOGETHER,
    ) -> None:
        self.clock = clock
        self.turns = FairQueue()
        self.writes = WriteBatch(most_together)
        self.draining = False
        self._draining_since = 0.0
        self._grace_s = 0.0
        self._patient_until = 0.0
        self._interval_s = interval_s
        self._members: set[C] = set()
        self._timer: asyncio.Handle | None = None  # runs the next sweep, or the next part of this one
        self._to_sweep: Iterator[C] = iter(())
        self._empty = asyncio.Event()
        self._empty.set()

    def write_by(self, writes: WriteBatch) -> None:
        """Replace the batch that defers writes. Call it before the first connection is added."""
        self.writes = writes

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._members))

    def add(self, connection: C) -> None:
        """Add a connection."""
        self._members.add(connection)
        self._empty.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def discard(self, connection: C) -> None:
        """Remove a closed connection."""
        self._members.discard(connection)
        if not self._members:
            self._empty.set()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._to_sweep = iter(())  # a sweep that had begun would keep all of them in memory

    def drain(self, grace_s: float, patience_s: float = float("inf")) -> None:
        """Begin to drain: connections close after the next answer, idle ones after ``grace_s``. See the class."""
        if not self.draining:
            self.draining = True
            self._draining_since = self.clock()
            self._grace_s = grace_s
            self._patient_until = self._draining_since + patience_s

    def may_stay(self, *, waiting_since: float) -> bool:
        """True if a draining connection stays open for a request that has waited since ``waiting_since``."""
        return waiting_since <= self._draining_since and self.clock() < self._patient_until

    def no_longer_wanted(self, now: float, idle_since: float) -> bool:
        """True if a draining connection, idle since ``idle_since``, has used up its grace period."""
        return self.draining and now - max(idle_since, self._draining_since) >= self._grace_s

    def group_of(self, _connection: C) -> Hashable:
        """Return the group of a connection in fair queueing; all share one by default."""
        return None

    def begin_stream(self, _group: Hashable) -> bool:
        """Count a new HTTP/2 request of this group. False if too many are in progress."""
        return True

    def end_stream(self, group: Hashable) -> None:
        """Count the end of an HTTP/2 request of this group."""

    def begin_waiting(self, _group: Hashable, _answer: Answered) -> bool:
        """Count an answer that a peer of this group does not read. False if too many answers wait already."""
        return True

    def end_waiting(self, group: Hashable, answer: Answered) -> None:
        """Stop counting an answer: its peer reads it again."""

    def note_unread(self, group: Hashable) -> None:
        """Note that an answer was ended because a peer of this group did not read it."""

    def sheds(self, _group: Hashable) -> bool:
        """True if an unanswered request of this group must end: too many answers wait for its peer."""
        return False

    def sweep(self) -> None:
        """Sweep every connection now."""
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
        some = tuple(islice(self._to_sweep, SWEPT_AT_ONCE))
        if len(some) < SWEPT_AT_ONCE:
            self._timer = loop.call_later(self._interval_s, self._tick)
        else:
            self._timer = loop.call_soon(self._sweep_some)
        now = self.clock()
        for connection in some:
            if connection in self._members:
                connection.sweep(now)
