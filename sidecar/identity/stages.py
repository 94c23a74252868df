"""Connections before their handshake is over, by stage: the earliest is at the head, in all and of each host."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Arrival:
    """One connection before its handshake is over. ``since``: when it came to its stage, or when its silence began."""

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

    After ``patience_s`` in it one may end for another: after ``least_s``, and where there are many after so long that
    at most ``per_s`` end in a second. A crowd that comes again as soon as it is ended costs no more than that.
    """

    least_s: float
    per_s: float
    by_host: OrderedDict[str, OrderedDict[Arrival, None]] = field(default_factory=OrderedDict)
    in_order: OrderedDict[Arrival, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.in_order)

    @property
    def patience_s(self) -> float:
        """Seconds in this stage after which a connection may end for another."""
        return max(self.least_s, len(self.in_order) / self.per_s)

    def add(self, arrival: Arrival, since: float) -> None:
        """Put a connection at the end."""
        arrival.stage, arrival.since = self, since
        self.in_order[arrival] = None
        self.by_host.setdefault(arrival.host, OrderedDict())[arrival] = None

    def discard(self, arrival: Arrival) -> None:
        """Take a connection out."""
        arrival.stage = None
        del self.in_order[arrival]
        own = self.by_host[arrival.host]
        del own[arrival]
        if not own:
            del self.by_host[arrival.host]

    def first(self, host: str | None = None) -> Arrival | None:
        """The earliest, of one host or of all."""
        among = self.in_order if host is None else self.by_host.get(host, ())
        return next(iter(among), None)

    def next_in_turn(self) -> Arrival:
        """The earliest of one host, each host in its turn. There is one."""
        host = next(iter(self.by_host))
        self.by_host.move_to_end(host)
        return next(iter(self.by_host[host]))


def first_to_go(stages: Iterable[Stage], now: float, host: str | None = None) -> Arrival | None:
    """Of the connections that have had their time, the one that had it first. Looks at one of each stage."""
    found, may_go_at = None, now
    for stage in stages:
        first = stage.first(host)
        goes_at = may_go_at if first is None else first.since + stage.patience_s
        if first is not None and goes_at <= may_go_at:
            found, may_go_at = first, goes_at
    return found
