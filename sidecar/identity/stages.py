"""Queues of connections before and in their handshake, by stage: in order of arrival, in all and by host."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Arrival:
    """One connection before or in its handshake. ``since``: the time at which it entered its stage, or fell silent."""

    accepted: socket.socket
    descriptor: int
    address: str
    host: str
    protocol: Callable[[], asyncio.BaseProtocol]
    deadline: float
    since: float = 0.0
    stage: Stage | None = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    handed_over: bool = False  # to the loop, which closes the socket from then on


@dataclass(eq=False, slots=True)
class Stage:
    """Connections of one stage, the earliest first.

    A connection may be evicted for another after ``patience_s``: ``least_s``, or longer in a flood, so that at most
    ``per_s`` are evicted in a second. That bounds the cost of a flood that reconnects at once.
    """

    least_s: float
    per_s: float
    by_host: OrderedDict[str, OrderedDict[Arrival, None]] = field(default_factory=OrderedDict)
    in_order: OrderedDict[Arrival, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.in_order)

    @property
    def patience_s(self) -> float:
        """Seconds in this stage after which a connection may be evicted for another."""
        return max(self.least_s, len(self.in_order) / self.per_s)

    def add(self, arrival: Arrival, since: float) -> None:
        """Add a connection at the end."""
        arrival.stage, arrival.since = self, since
        self.in_order[arrival] = None
        self.by_host.setdefault(arrival.host, OrderedDict())[arrival] = None

    def discard(self, arrival: Arrival) -> None:
        """Remove a connection."""
        arrival.stage = None
        del self.in_order[arrival]
        own = self.by_host[arrival.host]
        del own[arrival]
        if not own:
            del self.by_host[arrival.host]

    def first(self, host: str | None = None) -> Arrival | None:
        """Return the earliest connection, of one host or of all."""
        among = self.in_order if host is None else self.by_host.get(host, ())
        return next(iter(among), None)

    def next_in_turn(self) -> Arrival:
        """Return the earliest connection of the next host in turn. The stage must not be empty."""
        host = next(iter(self.by_host))
        self.by_host.move_to_end(host)
        return next(iter(self.by_host[host]))


def first_to_evict(stages: Iterable[Stage], now: float, host: str | None = None) -> Arrival | None:
    """Return the connection that has been evictable longest, or None. Examines one connection per stage."""
    found, earliest = None, now
    for stage in stages:
        first = stage.first(host)
        evictable_at = earliest if first is None else first.since + stage.patience_s
        if first is not None and evictable_at <= earliest:
            found, earliest = first, evictable_at
    return found
