"""Who is let in: connections counted by source address and by SPIFFE ID, and who makes room for whom.

What counts is that nobody locks others out. A connection on which no request is served is the first to go, the one that
waits longest before the others; one peer competes with its own connections before it competes with those of others: who
has fewer than the average of all peers goes after those who have more, and is given more time for a head. Nobody goes
whose bytes are here already, and were only not read yet: then it is we who are slow.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.errors import Denied, Reason, Unavailable
from sidecar.identity.handshake_queue import MOST_CONNECTIONS, host_of
from sidecar.identity.tls import peer_of
from sidecar.proxy.rotation import Rotation
from sidecar.wire.connections import Connections
from sidecar.wire.exchange import RequestHandler
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.holding import Holding
from sidecar.wire.kernel import unread

RESERVED_DESCRIPTORS: Final = 64  # upstream connections, keys, STS, sink: what must go on when peers take the rest
MAX_CONNECTIONS: Final = 8192  # of one listener, however many descriptors there are: each may cost 100 KiB
_ENDS: Final = 4  # two listeners, and a proxied request has two ends
_KEPT_FOR_PEERS: Final = 1024  # or half, where there are fewer: connections of proven peers
_ONE_PEERS_SHARE: Final = 0.75
_LOOK_AGAIN_S: Final = 0.02
_LOOKED_AT: Final = 64  # connections, 3 us each, where one has to make room
_ENDED_PER_S: Final = 250  # for others: each that comes in its place costs a handshake, 1.5 ms
_ENDED_AT_ONCE: Final = 64
_ENDED_AT: Final = 256  # the same while memory is short; up to half of them end, 50 us each
_ANSWER_HELD: Final = 64 * 1024  # before its source has to wait
_HURRY_S: Final = 0.1  # for a head to arrive whole, while others wait at the door
_HANDSHAKES_FOR_A_HEAD: Final = 4  # or so many times as long as the handshake took: the peer, or the machine, is slow
_STUCK_S: Final = 2.0  # without taking anything of an answer, likewise
_HOLD_S: Final = 3.0  # after the last was let in: by then who is stuck could be told from who is merely served


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections of peers at once, in all and of one source address or SPIFFE ID.

    ``max_connections`` None: what the process's descriptors allow, 8192 at most; the other two None: three quarters of
    that. At a limit a connection makes room for a new one that was idle for ``idle_s``, takes its time with a head, or
    takes nothing of its answer for two seconds. Handshakes never take more than half of the connections, however many
    ``max_handshakes`` are. Connections that have not begun one leave half of them, or 1024, to others; where there are
    descriptors that no connection needs they take none of them.
    """

    max_connections: int | None = None
    max_per_address: int | None = None
    max_per_peer: int | None = None
    max_handshakes: int = 1024
    handshake_timeout_s: float = 10.0
    idle_s: float = 1.0

    @property
    def in_all(self) -> int:
        """How many connections at most."""
        return self.max_connections or _descriptor_budget()

    @property
    def before_handshake(self) -> int:
        """How many connections may be held before and in their handshakes."""
        return max(1, self.in_all // 2, self.in_all - _KEPT_FOR_PEERS, min(self._spare, MOST_CONNECTIONS))

    @property
    def apart(self) -> bool:
        """Whether those connections take descriptors that none of ``in_all`` needs, and count as none of them."""
        return self._spare > self.in_all

    @property
    def _spare(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 0 if self.max_connections else (soft - reserve() - _ENDS * self.in_all) // 2

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

    ``on_made`` hears the address of each, and knows how long its handshake took.
    """

    def __init__(
        self, limits: ConnectionLimits, *, shed: RequestHandler, on_made: Callable[[str], float] = lambda _: 0.0
    ) -> None:
        super().__init__()
        self._on_made = on_made
        self._idle_s = limits.idle_s
        self._of_one_peer = limits.of_one_peer
        self._shed = shed
        self._owners: dict[ServerConnection, _Owner] = {}
        self._all: Rotation[ServerConnection] = Rotation()
        self._hosts: dict[str, Rotation[ServerConnection]] = {}
        self._peers: dict[str, Rotation[ServerConnection]] = {}  # by SPIFFE ID, or by address where there is none
        self._look_again_at = 0.0
        self._end_again_at = 0.0  # with nothing saved up
        self._let_in_at = 0.0
        self._holding = Holding(sent=_ANSWER_HELD)

    def of(self, host: str) -> int:
        """How many come from one source address."""
        return len(self._hosts.get(host, ()))

    @property
    def of_one_host(self) -> bool:
        """Whether all come from one source address."""
        return len(self._hosts) == 1

    def add(self, connection: ServerConnection) -> None:
        """Count a connection; its handshake is over, so its peer is known."""
        super().add(connection)
        self._holding.apply(connection.transport)
        address = _address_of(connection)
        hurry_s = max(_HURRY_S, _HANDSHAKES_FOR_A_HEAD * self._on_made(address))
        owner = _Owner(host_of(address), _peer_of(connection), min(hurry_s, self._idle_s))
        self._owners[connection] = owner
        own = self._peers.setdefault(owner.group, Rotation())
        for rotation in (self._all, self._hosts.setdefault(owner.host, Rotation()), own):
            rotation.add(connection)
        if owner.peer and len(own) > self._of_one_peer and not self._make_room(own):
            connection.handler = self._shed
        if connection.handler is not self._shed:
            self._let_in_at = self.clock()

    def discard(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            self._all.discard(connection)
            for rotations, one in ((self._hosts, owner.host), (self._peers, owner.group)):
                rotations[one].discard(connection)
                if not rotations[one]:
                    del rotations[one]
        super().discard(connection)

    def group_of(self, connection: ServerConnection) -> Hashable:
        """All connections of one peer share a turn: by its SPIFFE ID, or by its address where it has none."""
        owner = self._owners.get(connection)
        return "" if owner is None else owner.group

    def can_make_room(self) -> bool:
        """Whether somebody may be ended. Not looked for again at once where there was nobody."""
        now = self.clock()
        if now < self._look_again_at or not self._may_end(now):
            return False
        found = self._first_to_go(self._all) is not None
        if not found:
            self._look_again_at = now + _LOOK_AGAIN_S
        return found

    def make_room(self) -> bool:
        """End the first of those who may be ended."""
        return self.can_make_room() and self._make_room(self._all)

    def room_is_near(self, *, patiently: bool = True) -> bool:
        """Where nobody can be ended yet: whether somebody can be soon, and who comes had better wait in the queue.

        A head is there soon, or its connection may be ended. ``patiently``: for a while after the last one was let in,
        also for a connection that rests, or an answer that is not taken, if it may be ended by then.
        """
        now = self.clock()
        until = self._let_in_at + _HOLD_S if patiently else 0.0
        for one in self._all.next(_LOOKED_AT):
            since, patience_s = self._patience_with(one, stuck_s=_STUCK_S)
            begins = one.waits_since is not None and not one.kept
            if since is not None and (begins or now < until >= since + patience_s):
                return True
        return False

    def hold(self, *, little: bool) -> None:
        """Let little of each answer wait, or as much as usual again."""
        self._holding.change((one.transport for one in self), little=little)

    def end_waiting(self, *, slow_ones: bool = False) -> None:
        """Memory is short: of those who could make room, and of those who take no answer, end who waits longer.

        That is half of them, so that as few go as must: the next look comes soon. It is at ``_ENDED_AT`` connections at
        most, so that requests do not wait for it. ``slow_ones``: who takes an answer more slowly than it comes may go
        too.
        """
        now = self.clock()
        some = self._all.next(_ENDED_AT)
        latest = now - (_HURRY_S if slow_ones else self._idle_s)
        behind = ((since, id(one), one) for one in some if (since := one.behind_since) is not None and since <= latest)
        resting = ((one.since, id(one.connection), one.connection) for one in self._who_may_go(some, now))
        waiting = sorted({*resting, *behind}, key=lambda one: one[:2])
        for _, _, connection in waiting[: (len(waiting) + 1) // 2]:
            connection.give_way(Unavailable(Reason.OVERLOADED, "memory is short"))

    def make_room_at(self, host: str) -> bool:
        """The same among those of one source address."""
        own = self._hosts.get(host)
        return own is not None and self._make_room(own)

    def _make_room(self, among: Rotation[ServerConnection]) -> bool:
        now = self.clock()
        found = self._first_to_go(among) if self._may_end(now) else None
        if found is not None:
            self._end_again_at = max(self._end_again_at, now) + 1 / _ENDED_PER_S
            found.give_way(Unavailable(Reason.OVERLOADED, "it made room for another connection"))
        return found is not None

    def _may_end(self, now: float) -> bool:
        """Whether one more may be ended for another: a crowd that comes again at once costs no more than that."""
        return self._end_again_at - now < _ENDED_AT_ONCE / _ENDED_PER_S

    def _first_to_go(self, among: Rotation[ServerConnection]) -> ServerConnection | None:
        """The first that may be ended: of those found in the last look, as long as that is fresh, or of a new one."""
        now = self.clock()
        fresh = len(among) > _LOOKED_AT and now - among.looked_at < _LOOK_AGAIN_S
        first = self._still_first(among, now) if fresh else None
        if first is None:
            some = among.next(_LOOKED_AT)
            found = sorted(self._who_may_go(some, now, stuck_s=_STUCK_S), reverse=True)
            among.looked_at = now
            among.fruitless = 0 if found and not found[-1].spared else among.fruitless + len(some)
            saw_all = len(among) <= max(len(some), among.fruitless)
            among.found = [one.connection for one in found if saw_all or not one.spared]
            first = self._still_first(among, now)
        return first

    def _still_first(self, among: Rotation[ServerConnection], now: float) -> ServerConnection | None:
        while among.found:
            first = among.found[-1]
            for one in self._who_may_go((first,), now, stuck_s=_STUCK_S) if first in self._owners else ():
                if now - one.may_since > self._idle_s or not unread(first.transport):
                    return first
            among.found.pop()
        return None

    def _who_may_go(
        self, among: Iterable[ServerConnection], now: float, *, stuck_s: float | None = None
    ) -> Iterator[_Candidate]:
        """Those on which no request is served for longer than they may; and answers that are stuck for so long."""
        for one in among:
            since, patience_s = self._patience_with(one, stuck_s=stuck_s)
            if since is not None and now - since >= patience_s:
                yield _Candidate(not self._has_its_share(one), since, id(one), since + patience_s, one)

    def _patience_with(self, one: ServerConnection, *, stuck_s: float | None) -> tuple[float | None, float]:
        """Since when it holds a place for nothing, and how long it may; None: it does not."""
        since = one.waits_since
        if since is None:
            return (None, 0.0) if stuck_s is None else (one.behind_since, stuck_s)
        return since, self._idle_s if one.kept or not self._has_its_share(one) else self._owners[one].hurry_s

    def _has_its_share(self, connection: ServerConnection) -> bool:
        """Whether its peer has no fewer connections than the average of all."""
        return len(self._peers[self._owners[connection].group]) * len(self._peers) >= len(self)


class _Owner(NamedTuple):
    """Whose a connection is. ``peer``: its SPIFFE ID, "" where there is none. ``hurry_s``: how long a head may take."""

    host: str
    peer: str
    hurry_s: float

    @property
    def group(self) -> str:
        """All connections that compete as one's own."""
        return self.peer or self.host


class _Candidate(NamedTuple):
    """A connection that may be ended; the least goes first."""

    spared: bool
    since: float
    number: int
    may_since: float
    connection: ServerConnection


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
    return max(1, min(MAX_CONNECTIONS, (soft - reserve()) // _ENDS))


def reserve() -> int:
    """Descriptors that peers cannot have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(RESERVED_DESCRIPTORS, soft // 4)
