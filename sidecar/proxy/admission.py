"""Who is let in: connections counted by source address and by SPIFFE ID, and who makes room for whom.

What counts is that nobody locks others out. A connection on which no request is served is the first to go, the one that
waits longest before the others; one peer competes with its own connections before it competes with those of others.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Denied, Reason, Unavailable
from sidecar.identity.acceptor import host_of
from sidecar.identity.tls import peer_of
from sidecar.wire.connections import Connections
from sidecar.wire.exchange import RequestHandler
from sidecar.wire.h1_server import ServerConnection

RESERVED_DESCRIPTORS: Final = 64  # upstream connections, keys, STS, sink: what must go on when peers take the rest
MAX_CONNECTIONS: Final = 8192  # of one listener, however many descriptors there are: each may cost 100 KiB
_ONE_PEERS_SHARE: Final = 0.75
_LOOK_AGAIN_S: Final = 0.02
_HELD_WHEN_SHORT: Final = 16 * 1024
_HURRY_S: Final = 0.1  # for a head to arrive whole, while others wait at the door


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections of peers at once, in all and of one source address or SPIFFE ID.

    ``max_connections`` None: what the process's descriptors allow, 8192 at most; the other two None: three quarters of
    that. At a limit a connection that was idle for ``idle_s``, or that takes its time with a head, makes room for a new
    one. Handshakes never take more than half of the connections, however many ``max_handshakes`` are.
    """

    max_connections: int | None = None
    max_per_address: int | None = None
    max_per_peer: int | None = None
    max_handshakes: int = 256
    handshake_timeout_s: float = 5.0
    idle_s: float = 1.0

    @property
    def in_all(self) -> int:
        """How many connections at most."""
        return self.max_connections or _descriptor_budget()

    @property
    def of_one_address(self) -> int:
        """How many of them from one source address."""
        return min(self.max_per_address or self._one_share, self.in_all)

    @property
    def of_one_peer(self) -> int:
        """How many of them of one SPIFFE ID."""
        return min(self.max_per_peer or self._one_share, self.in_all)

    @property
    def _one_share(self) -> int:
        return max(1, int(self.in_all * _ONE_PEERS_SHARE))


class Admission(Connections[ServerConnection]):
    """The connections of one listener. One that a peer has too many of is given to ``shed``, which says so.

    ``on_made`` hears the address of each.
    """

    def __init__(
        self, limits: ConnectionLimits, *, shed: RequestHandler, on_made: Callable[[str], None] = lambda _: None
    ) -> None:
        super().__init__()
        self._on_made = on_made
        self._idle_s = limits.idle_s
        self._of_one_peer = limits.of_one_peer
        self._shed = shed
        self._owners: dict[ServerConnection, tuple[str, str]] = {}  # host and SPIFFE ID, "" where unknown
        self._hosts: Counter[str] = Counter()
        self._peers: Counter[str] = Counter()
        self._look_again_at = 0.0

    def of(self, host: str) -> int:
        """How many come from one source address."""
        return self._hosts[host]

    def add(self, connection: ServerConnection) -> None:
        """Count a connection; its handshake is over, so its peer is known."""
        super().add(connection)
        address = _address_of(connection)
        self._on_made(address)
        host, peer = self._owners[connection] = host_of(address), _peer_of(connection)
        self._hosts[host] += 1
        self._peers[peer] += 1
        if peer and self._peers[peer] > self._of_one_peer and not self._make_room_of(peer):
            connection.handler = self._shed

    def discard(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            for counts, one in ((self._hosts, owner[0]), (self._peers, owner[1])):
                counts[one] -= 1
                if not counts[one]:
                    del counts[one]
        super().discard(connection)

    def group_of(self, connection: ServerConnection) -> Hashable:
        """All connections of one peer share a turn: by its SPIFFE ID, or by its address where it has none."""
        host, peer = self._owners.get(connection, ("", ""))
        return peer or host

    def room_is_near(self) -> bool:
        """Whether nobody can be ended yet, but somebody soon: who comes had better wait in the system's queue."""
        young = False
        now = self.clock()
        for one in self:
            since = one.waits_since
            if since is None:
                continue
            kept = one.kept
            if now - since >= (self._idle_s if kept else _HURRY_S):
                return False
            young = young or not kept
        return young

    def make_room(self) -> bool:
        """End whoever waits longest for its next request. Not looked for again at once where there was nobody."""
        now = self.clock()
        if now < self._look_again_at:
            return False
        found = self._make_room(lambda _: True)
        if not found:
            self._look_again_at = now + _LOOK_AGAIN_S
        return found

    def hold_less(self) -> None:
        """Memory is short: wait for a peer that is slower than we are once this much of an answer is not taken."""
        for transport in self._transports():
            transport.set_write_buffer_limits(high=_HELD_WHEN_SHORT)

    def hold_as_ever(self) -> None:
        """There is memory again: as much as the event loop holds unless told, up to half a MiB with TLS."""
        for transport in self._transports():
            transport.set_write_buffer_limits()

    def _transports(self) -> Iterator[asyncio.Transport]:
        return (one.transport for one in self if not one.transport.is_closing())  # uvloop takes no word of a closed one

    def end_waiting(self, *, slow_ones: bool = False) -> None:
        """Memory is short: of those who could make room, and of those who take no answer, end who waits longer.

        That is half of them, so that as few go as must: the next look comes soon. ``slow_ones``: who takes an answer
        more slowly than it comes may go too.
        """
        latest = self.clock() - (_HURRY_S if slow_ones else self._idle_s)
        behind = ((since, id(one), one) for one in self if (since := one.behind_since) is not None and since <= latest)
        waiting = sorted({*self._waiting(lambda _: True), *behind}, key=lambda one: one[:2])
        for _, _, one in waiting[: (len(waiting) + 1) // 2]:
            one.give_way(Unavailable(Reason.OVERLOADED, "memory is short"))

    def make_room_at(self, host: str) -> bool:
        """The same among those of one source address."""
        return self._make_room(lambda one: self._owners[one][0] == host)

    def _make_room_of(self, peer: str) -> bool:
        return self._make_room(lambda one: self._owners[one][1] == peer)

    def _make_room(self, among: Callable[[ServerConnection], bool]) -> bool:
        waiting = self._waiting(among)
        if not waiting:
            return False
        _, _, longest = min(waiting)
        longest.give_way(Unavailable(Reason.OVERLOADED, "it made room for another connection"))
        return True

    def _waiting(self, among: Callable[[ServerConnection], bool]) -> list[tuple[float, int, ServerConnection]]:
        """Those that may be ended, each with since when it waits."""
        now = self.clock()
        return [
            (since, id(one), one)
            for one in self
            if (since := one.waits_since) is not None
            and now - since >= (self._idle_s if one.kept else _HURRY_S)
            and among(one)
        ]


def _address_of(connection: ServerConnection) -> str:
    address = connection.transport.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if address else ""


def _peer_of(connection: ServerConnection) -> str:
    transport: asyncio.BaseTransport = connection.transport
    if transport.get_extra_info("ssl_object") is None:
        return ""
    try:
        return peer_of(transport).spiffe_id
    except Denied:
        return ""


def _descriptor_budget() -> int:
    """A quarter of what may be open, but for the reserve: two listeners, and a proxied request has two ends."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, (soft - reserve()) // 4))


def reserve() -> int:
    """Descriptors that peers cannot have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(RESERVED_DESCRIPTORS, soft // 4)
