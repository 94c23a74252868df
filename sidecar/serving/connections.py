"""Limits that the HTTP library lacks: on the number of connections, and on the time that a request takes to arrive.

Each connection's protocol is wrapped in one that counts it and runs a deadline while a request arrives. At the limit
the connection that is idle for longest is evicted: its client reconnects when needed. With a ``Crowd``, a request that
arrives too slowly is evicted as well: otherwise a few hundred clients with endless requests would lock everybody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import web

from delegation_core.errors import Reason
from sidecar.admission import ADMIT, OVERLOADED, WAIT, Admit, Evict, Shed, Wait, at_limit

HEAD_TIMEOUT_S: Final = 10.0
PATIENCE_S: Final = 0.5  # with a request while others wait; an honest client's arrives in milliseconds
EVICTED_PER_S: Final = 250  # each that comes in its place costs a handshake, 1.5 ms
IDLE_S: Final = 1.0  # since its last answer, before a connection is evicted: the answer must have left us

OnCut = Callable[[Reason, str | None], None]
"""Called with the reason why a connection was cut, and the other end's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Limits for untrusted clients. A request that takes longer than ``patience_s`` to arrive may be evicted.

    Above ``max_bytes`` of unanswered requests, the largest one that is still arriving is cut if it exceeds its share,
    so that a flood of large requests does not harm small ones.
    """

    max_bytes: int
    patience_s: float = PATIENCE_S


class Connections:
    """Makes the protocols of one listener, around those of ``make``: at most ``limit`` at once.

    At the limit a new connection evicts an idle one, or one of a ``crowd`` whose request arrives too slowly; without
    one, it waits (``before_accept``) or is cut. ``head_timeout_s`` limits the time of a request until ``arrived``.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        *,
        limit: int,
        head_timeout_s: float,
        on_cut: OnCut,
        crowd: Crowd | None = None,
    ) -> None:
        self.idle_s = IDLE_S
        self.open = 0
        self.limit = limit
        self.head_timeout_s = head_timeout_s
        self.on_cut = on_cut
        self._crowd = crowd
        self._make = make
        self._idle: dict[_Watched, float] = {}  # and since when; longest first
        self._arriving: dict[_Watched, float] = {}  # the same
        self._bytes = 0  # of requests that are not answered
        self._emptied: asyncio.Event | None = None

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""
        return _Watched(self._make(), self)

    def admit(self) -> bool:
        """Admit and count a new connection. Returns False if it is refused."""
        if isinstance(self._decide(self.open, OVERLOADED), Shed):
            return False
        self.open += 1
        return True

    def before_accept(self, handshakes: int) -> Admit | Wait:
        """Decide on accepting a connection, with ``handshakes`` in flight. Only a ``Crowd`` waits."""
        if self._crowd is None or not isinstance(self._decide(self.open + handshakes, WAIT), Wait):
            return ADMIT
        return WAIT

    def _decide(self, held: int, otherwise: Shed | Wait) -> Admit | Evict[_Watched] | Shed | Wait:
        """Decide on a connection beyond ``held``, evicting another one if needed."""
        decision = at_limit(held, self.limit, self._first_to_evict, otherwise)
        match decision:
            case Evict(idle) if idle in self._idle:
                idle.give_way()
            case Evict(slow):
                slow.cut(Reason.OVERLOADED)
        return decision

    def _first_to_evict(self) -> _Watched | None:
        patience_s = None if self._crowd is None else self._crowd.patience_s
        return _longest(self._idle, self.idle_s) or _longest(self._arriving, patience_s)

    def leave(self, connection: _Watched) -> None:
        """Forget a closed connection."""
        self.arrived(connection)
        self._forget_bytes(connection)
        self.open -= 1
        if not self.open and self._emptied is not None:
            self._emptied.set()

    async def wait_for_empty(self, timeout_s: float) -> None:
        """Wait until no connection is open, for ``timeout_s`` at most."""
        if self.open:
            self._emptied = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()

    def rest(self, connection: _Watched) -> None:
        """Note an idle keep-alive connection."""
        self._forget_bytes(connection)
        self._idle[connection] = asyncio.get_running_loop().time()

    def arriving(self, connection: _Watched) -> None:
        """Note a connection that is new, or gets the first byte of its next request."""
        self._idle.pop(connection, None)
        self._arriving[connection] = asyncio.get_running_loop().time()

    def arrived(self, connection: _Watched) -> None:
        """Note a connection whose request has arrived as far as needed, or will not come."""
        self._idle.pop(connection, None)
        self._arriving.pop(connection, None)

    def received(self, connection: _Watched, count: int) -> None:
        """Count received bytes of a request."""
        connection.received += count
        self._bytes += count
        while self._crowd is not None and self._bytes > self._crowd.max_bytes and self._arriving:
            largest = max(self._arriving, key=lambda one: one.received)
            if largest.received <= self._crowd.max_bytes // self.limit:
                return
            largest.cut(Reason.OVERLOADED)

    def _forget_bytes(self, connection: _Watched) -> None:
        self._bytes -= connection.received
        connection.received = 0


def _longest(waiting: dict[_Watched, float], least_s: float | None) -> _Watched | None:
    """Return the connection that has waited longest, at least ``least_s`` (more in a flood, to limit evictions)."""
    longest, since = next(iter(waiting.items()), (None, 0.0))
    if longest is None or least_s is None:
        return None
    waited_s = asyncio.get_running_loop().time() - since
    return longest if waited_s >= max(least_s, len(waiting) / EVICTED_PER_S) else None


class _Watched(asyncio.Protocol):
    """One connection. Its deadline runs from the start, and from the first byte after each answer, to ``arrived``."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._counted = False
        self._serving = False
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.received = 0  # bytes of a request that is not answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._connections.admit():
            self.cut(Reason.OVERLOADED)
            return
        self._counted = True
        self._inner.connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._counted:
            return
        if self._deadline is None and not self._serving:
            self._watch()
        if not self._serving:
            self._connections.received(self, len(data))
        if self._counted:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._counted else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.arrived()
        if self._counted:
            self._counted = False
            self._connections.leave(self)
            self._inner.connection_lost(error)

    def arrived(self) -> None:
        """Stop the read deadline: the request is served, with deadlines of its own, or the connection is gone."""
        self._serving = True
        self._connections.arrived(self)
        self._stop_the_clock()

    def answered(self) -> None:
        """Note the end of a request; another one may follow."""
        self._serving = False
        if self._counted:
            self._connections.rest(self)

    def give_way(self) -> None:
        """Close in favour of a new connection. The slot is free at once, before the transport has closed."""
        self._stop_the_clock()
        self._counted = False
        self._connections.leave(self)
        self._inner.connection_lost(None)
        if self._transport is not None:
            self._transport.abort()

    def cut(self, reason: Reason) -> None:
        """Abort the connection and report the reason."""
        if self._counted:
            self.give_way()
        if self._transport is not None:
            address = self._transport.get_extra_info("peername")
            self._connections.on_cut(reason, f"{address[0]}:{address[1]}" if address else None)
            self._transport.abort()

    def _watch(self) -> None:
        self._connections.arriving(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._connections.head_timeout_s, self.cut, Reason.TIMEOUT)

    def _stop_the_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@web.middleware
async def head_has_arrived(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Stop the read deadline while a request is served: its head is complete."""
    with served(request):
        return await handler(request)


@contextmanager
def served(request: web.Request) -> Iterator[None]:
    """Stop the read deadline of a request's connection inside the block: as much as needed has arrived."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    if not isinstance(protocol, _Watched):
        yield
        return
    protocol.arrived()
    try:
        yield
    finally:
        protocol.answered()
