"""The connections of one listener, indexed by source address and by SPIFFE ID.

Collects facts about connections for ``sidecar.admission``, which decides, and evicts the connection that it chooses. A
search examines a bounded sample in rotation, so its cost does not grow with the number of connections (ADR 0033).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from delegation_core.errors import Denied, Reason, Unavailable
from sidecar.admission import Activity, Evict, EvictionRate, Shed, on_peer, tenure_of
from sidecar.identity.handshake_queue import host_of
from sidecar.identity.tls import peer_of
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.proxy.listening.rotation import Rotation
from sidecar.wire.caller_connection import CallerConnection
from sidecar.wire.connections import Answered, Connections
from sidecar.wire.kernel import unread
from sidecar.wire.limits import BufferLimits
from sidecar.wire.stream import RequestHandler

_LOOK_AGAIN_S: Final = 0.02
_LOOKED_AT: Final = 64  # connections in one search, 3 us each
_EVICTED_PER_S: Final = 250  # the new connection costs a handshake, 1.5 ms
_EVICTED_AT_ONCE: Final = 64
_LOOKED_AT_WHEN_SHORT: Final = 256  # connections in one search while memory is short; half may end, 50 us each
_ANSWER_HELD: Final = 64 * 1024  # bytes of an answer before its source is paused
_HEAD_S: Final = 0.1  # to complete a head while other connections wait for admission
_HANDSHAKES_FOR_A_HEAD: Final = 4  # a head may take 4 times its handshake, if longer: the peer or the machine is slow
_STUCK_S: Final = 2.0  # without reading anything of an answer
_SLOW_S: Final = 30.0  # a peer counts as slow after it left too many answers unread
_PROVEN: Final = "spiffe://"
_HOLD_S: Final = 3.0  # after the last admission: long enough to tell a stuck answer from a slow one


class ConnectionTable(Connections[Any]):
    """The connections of one listener. Those above a peer's limit are handed to ``shed``, which refuses their requests.

    ``on_made`` is called with the address of each new connection and returns the seconds that its handshake took.
    """

    def __init__(
        self, limits: ConnectionLimits, *, shed: RequestHandler, on_made: Callable[[str], float] = lambda _: 0.0
    ) -> None:
        super().__init__()
        self._on_made = on_made
        self._idle_s = limits.idle_s
        self._per_peer = limits.per_peer
        self._per_address = limits.per_address
        self._max_streams = limits.total
        self._streams: Counter[Hashable] = Counter()  # by group
        self._max_waiting = limits.max_waiting_per_peer
        self._waiting: defaultdict[Hashable, set[Answered]] = defaultdict(set)  # by SPIFFE ID
        self._slow_until: dict[Hashable, float] = {}  # of peers that left too many answers unread
        self._shed = shed
        self._owners: dict[CallerConnection, _Owner] = {}
        self._all: Rotation[CallerConnection] = Rotation()
        self._hosts: dict[str, Rotation[CallerConnection]] = {}
        self._peers: dict[str, Rotation[CallerConnection]] = {}  # by SPIFFE ID, else by address
        self._look_again_at = 0.0
        self._evictions = EvictionRate(per_s=_EVICTED_PER_S, at_once=_EVICTED_AT_ONCE)
        self._admitted_at = 0.0
        self._holding = BufferLimits(sent=_ANSWER_HELD)

    def of(self, host: str) -> int:
        """Return the number of connections from one source address."""
        return len(self._hosts.get(host, ()))

    @property
    def of_one_host(self) -> bool:
        """True if all connections come from one source address."""
        return len(self._hosts) == 1

    def add(self, connection: CallerConnection) -> None:
        """Add a connection after its handshake. Over its peer's limit, evict one of the peer's or shed this one."""
        super().add(connection)
        self._holding.apply(connection.transport)
        address = _address_of(connection)
        head_s = max(_HEAD_S, _HANDSHAKES_FOR_A_HEAD * self._on_made(address))
        owner = _Owner(host_of(address), _peer_of(connection), min(head_s, self._idle_s))
        self._owners[connection] = owner
        own = _rotation_of(self._peers, owner.group)
        for rotation in (self._all, _rotation_of(self._hosts, owner.host), own):
            rotation.add(connection)
        if owner.peer:
            match on_peer(
                len(own) - 1,
                self._max_waiting if self._is_slow(owner.peer) else self._per_peer,
                lambda: self._first_of(own),
                address_full=len(self._hosts[owner.host]) > self._per_address,
                below_share=self._is_below_share(connection),
            ):
                case Evict(other):
                    self.evict(other)
                case Shed():
                    connection.hand_over(self._shed)
        if connection.handler is not self._shed:
            self._admitted_at = self.clock()

    def discard(self, connection: CallerConnection) -> None:
        """Remove a connection."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            self._all.discard(connection)
            for rotations, one in ((self._hosts, owner.host), (self._peers, owner.group)):
                rotations[one].discard(connection)
                if not rotations[one]:
                    del rotations[one]
            if owner.group not in self._peers:
                self._waiting.pop(owner.group, None)
        super().discard(connection)

    def group_of(self, connection: CallerConnection) -> Hashable:
        """Return the key of fair scheduling: the peer's SPIFFE ID, else its address."""
        owner = self._owners.get(connection)
        return "" if owner is None else owner.group

    def begin_stream(self, group: Hashable) -> bool:
        """Count a request of HTTP/2; return False at the limit. The limits are those of connections."""
        per_peer = self._max_waiting if self._is_slow(group) else self._per_peer
        if self._streams.total() >= self._max_streams or self._streams[group] >= per_peer:
            return False
        self._streams[group] += 1
        return True

    def end_stream(self, group: Hashable) -> None:
        """Count the end of a request of HTTP/2."""
        self._streams[group] -= 1
        if not self._streams[group]:
            del self._streams[group]

    def begin_waiting(self, group: Hashable, answer: Answered) -> bool:
        """Count an answer that a proven peer does not read. Return False if the peer has too many; it is slow then.

        Answers to callers without a SPIFFE ID are not limited here, only by their connections.
        """
        waiting = self._waiting[group]
        if answer in waiting or not str(group).startswith(_PROVEN):
            return True
        if len(waiting) >= self._max_waiting:
            waiting -= {one for one in waiting if not one.behind}
        if len(waiting) >= self._max_waiting:
            self._slow_until[group] = self.clock() + _SLOW_S
            return False
        waiting.add(answer)
        return True

    def end_waiting(self, group: Hashable, answer: Answered) -> None:
        """Stop counting an answer: its peer reads again, or the answer has ended."""
        self._waiting[group].discard(answer)

    def note_unread(self, group: Hashable) -> None:
        """Limit a slow peer for another ``_SLOW_S``, because it left one more answer unread."""
        if self._is_slow(group):
            self._slow_until[group] = self.clock() + _SLOW_S

    def sheds(self, group: Hashable) -> bool:
        """Return True if a slow peer has more than ``max_waiting_per_peer`` requests in progress."""
        if not self._is_slow(group):
            return False
        some = self._peers.get(str(group))
        busy = () if some is None else [one for one in some.next(_LOOKED_AT) if one.waits_since is None]
        return max(self._streams[group], len(busy)) > self._max_waiting

    def _is_slow(self, group: Hashable) -> bool:
        """Return True if a peer left too many answers unread within the last ``_SLOW_S``."""
        until = self._slow_until.get(group)
        if until is None:
            return False
        if self.clock() < until:
            return True
        del self._slow_until[group]
        return False

    def first_to_evict(self, host: str | None = None) -> CallerConnection | None:
        """Return the connection to evict for a new one, of one source address or of all; None: none may be evicted.

        After a search of all connections without a result, returns None for ``_LOOK_AGAIN_S``.
        """
        if host is not None:
            own = self._hosts.get(host)
            return None if own is None else self._first_of(own)
        now = self.clock()
        if now < self._look_again_at:
            return None
        found = self._first_of(self._all)
        if found is None and self._evictions.allows(now):
            self._look_again_at = now + _LOOK_AGAIN_S
        return found

    def evict(self, connection: CallerConnection) -> None:
        """End a connection in favour of a new one."""
        self._evictions.spend(self.clock())
        connection.give_way(Unavailable(Reason.OVERLOADED, "evicted for another connection"))

    def evictable_soon(self, *, patiently: bool = True) -> bool:
        """Return True if some connection becomes evictable soon, so that a new one should wait.

        That is a connection whose head is due. With ``patiently``, for ``_HOLD_S`` after the last admission, it is also
        a connection between requests, or with an unread answer.
        """
        now = self.clock()
        until = self._admitted_at + _HOLD_S if patiently else 0.0
        for one in self._all.next(_LOOKED_AT):
            tenure = self._tenure_of(one, below_share=self._is_below_share(one), stuck_s=_STUCK_S)
            if tenure is not None:
                since, patience_s = tenure
                awaits_head = one.waits_since is not None and not one.kept
                if awaits_head or now < until >= since + patience_s:
                    return True
        return False

    def hold(self, *, little: bool) -> None:
        """Set the buffer of each answer to a ``little``, or back to normal."""
        self._holding.change((one.transport for one in self), little=little)

    def relieve_memory(self, *, slow_ones: bool = False) -> None:
        """While memory is short, end idle connections and unread answers: the half that has waited longest.

        Half of them, because the next look comes soon. On a connection with several requests, only the requests with an
        unread answer end. A call examines ``_LOOKED_AT_WHEN_SHORT`` connections, so that requests do not wait for it.
        ``slow_ones``: also end answers that their peer reads more slowly than they arrive.
        """
        now = self.clock()
        some = self._all.next(_LOOKED_AT_WHEN_SHORT)
        latest = now - (_HEAD_S if slow_ones else self._idle_s)
        behind = ((since, id(one), one) for one in some if (since := one.behind_since) is not None and since <= latest)
        idle = ((one.since, id(one.connection), one.connection) for one in self._evictable(some, now))
        waiting = sorted({*idle, *behind}, key=lambda one: one[:2])
        error = Unavailable(Reason.OVERLOADED, "memory is short")
        for _, _, connection in waiting[: (len(waiting) + 1) // 2]:
            connection.give_way(error)
        for connection in some:
            connection.give_way_stuck(latest, error)

    def _first_of(self, among: Rotation[CallerConnection]) -> CallerConnection | None:
        """Return the connection to evict, from the last search while that is fresh, else from a new search."""
        now = self.clock()
        if not self._evictions.allows(now):
            return None
        fresh = len(among) > _LOOKED_AT and now - among.looked_at < _LOOK_AGAIN_S
        first = self._still_first(among, now) if fresh else None
        if first is None:
            some = among.next(_LOOKED_AT)
            found = sorted(self._evictable(some, now, stuck_s=_STUCK_S), reverse=True)
            among.looked_at = now
            among.fruitless = 0 if found and not found[-1].below_share else among.fruitless + len(some)
            saw_all = len(among) <= max(len(some), among.fruitless)
            among.found = [one.connection for one in found if saw_all or not one.below_share]
            first = self._still_first(among, now)
        return first

    def _still_first(self, among: Rotation[CallerConnection], now: float) -> CallerConnection | None:
        while among.found:
            first = among.found[-1]
            for one in self._evictable((first,), now, stuck_s=_STUCK_S) if first in self._owners else ():
                # With unread bytes in its socket, the delay is ours: keep it for another ``idle_s``.
                if now - one.evictable_since > self._idle_s or not unread(first.transport):
                    return first
            among.found.pop()
        return None

    def _evictable(
        self, among: Iterable[CallerConnection], now: float, *, stuck_s: float | None = None
    ) -> Iterator[_Evictable]:
        for one in among:
            below_share = self._is_below_share(one)
            tenure = self._tenure_of(one, below_share=below_share, stuck_s=stuck_s)
            if tenure is not None and now - tenure[0] >= tenure[1]:
                yield _Evictable(below_share, tenure[0], id(one), sum(tenure), one)

    def _tenure_of(
        self, one: CallerConnection, *, below_share: bool, stuck_s: float | None
    ) -> tuple[float, float] | None:
        activity = Activity(
            idle_since=one.waits_since,
            stuck_since=one.behind_since,
            between_requests=one.kept,
            below_share=below_share,
            head_s=self._owners[one].head_s,
        )
        return tenure_of(activity, idle_s=self._idle_s, stuck_s=stuck_s)

    def _is_below_share(self, connection: CallerConnection) -> bool:
        """Return True if the connection's peer has fewer connections than the average peer."""
        return len(self._peers[self._owners[connection].group]) * len(self._peers) < len(self)


class _Owner(NamedTuple):
    """Owner of a connection. ``peer``: its SPIFFE ID, "" without one. ``head_s``: seconds to complete a head."""

    host: str
    peer: str
    head_s: float

    @property
    def group(self) -> str:
        """Key of the connections that share limits and turns: the SPIFFE ID, else the address."""
        return self.peer or self.host


class _Evictable(NamedTuple):
    """A connection that may be evicted; the smallest tuple is evicted first."""

    below_share: bool
    since: float
    number: int
    evictable_since: float
    connection: CallerConnection


def _rotation_of(rotations: dict[str, Rotation[CallerConnection]], name: str) -> Rotation[CallerConnection]:
    rotation = rotations.get(name)
    if rotation is None:
        rotation = rotations[name] = Rotation()
    return rotation


def _address_of(connection: CallerConnection) -> str:
    address = connection.transport.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if address else ""


def _peer_of(connection: CallerConnection) -> str:
    transport: asyncio.BaseTransport = connection.transport
    if transport.get_extra_info("ssl_object") is None:
        return ""
    try:
        return peer_of(transport).spiffe_id
    except Denied:
        return ""
