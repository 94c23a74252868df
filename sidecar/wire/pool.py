"""Pool of upstream connections, and the rules for their reuse.

Connections are shared only between requests to one ``Origin.key``, which holds everything that must not be mixed: peer
identity and our own SVID. The queue of calls for one key is in ``origin_pool``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Dialer, Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import BufferLimits, ClientLimits
from sidecar.wire.origin_pool import OnError, OnReady, OriginPool, PoolEvent
from sidecar.wire.resolver import Resolver

if TYPE_CHECKING:
    from sidecar.wire.raw_tunnel import RawEnd
    from sidecar.wire.upstream import Line, Upstream

__all__ = ["Cancellable", "Failing", "Origin", "UpstreamPool", "new_counts"]

_MAX_FAILING: Final = 64  # upstreams come from the settings; those from before a reload are dropped


class Failing(NamedTuple):
    """Failure of the last attempt to connect to one upstream, by the pool's clock."""

    at: float
    reason: Reason
    detail: str


class Cancellable(Protocol):
    """A wait that can be given up; its callbacks are then never called."""

    def cancel(self) -> None:
        """Give up."""


class UpstreamPool:
    """The connections to all upstreams of one listener.

    ``failing``: the upstreams (HOST:PORT) whose last connection attempt failed. ``counts`` has a counter
    for each ``PoolEvent``. At most ``unread`` bytes of each connection wait in the kernel; None: the kernel decides, so
    that a remote upstream is as fast as possible. ``raw`` has the far ends of tunnels, which are never reused.
    """

    def __init__(
        self,
        limits: ClientLimits,
        *,
        resolver: Resolver | None = None,
        counts: dict[PoolEvent, int] | None = None,
        unread: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections: Connections[Line] = Connections(clock=clock)
        self.raw: Connections[RawEnd] = Connections(clock=clock)
        self.counts = new_counts() if counts is None else counts
        self.failing: dict[str, Failing] = {}
        self._limits = limits
        self._holding = BufferLimits(received=unread)
        self._closed = False
        self._dialer = Dialer(resolver or Resolver(), timeout_s=limits.connect_timeout_s)
        self.pools: dict[Hashable, OriginPool] = {}
        self._all: set[OriginPool] = set()  # retired ones too, until their last connection is gone

    @property
    def stream_idle_s(self) -> float:
        """The longest silence of a stream that stays open."""
        return self._limits.stream_idle_timeout_s

    def take(self, origin: Origin) -> Upstream | None:
        """Return an idle connection that no call waits for, or None. Never waits."""
        pool = self.pools.get(origin.key)
        return None if pool is None else pool.take(origin.still_good, len(pool.usual))

    def reaches(self, origin: Origin) -> bool:
        """True if a connection to this origin is open."""
        pool = self.pools.get(origin.key)
        return pool is not None and bool(pool.alive)

    def connect(self, origin: Origin, on_ready: OnReady, on_error: OnError, *, fresh: bool = False) -> Cancellable:
        """Wait for a connection: a new one, or (unless ``fresh``) a reused one that becomes free first.

        Exactly one of the callbacks is called later, unless the wait is cancelled. Errors: UPSTREAM_UNREACHABLE,
        UPSTREAM_TIMEOUT, UPSTREAM_IDENTITY (the TLS handshake failed).
        """
        if self._closed:
            gone = Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed")
            return asyncio.get_running_loop().call_soon(on_error, gone)
        pool = self.pools.get(origin.key)
        if pool is None:
            pool = self.pools[origin.key] = OriginPool(
                origin, self._limits, self.counts, self.connections.clock, opened=self._open, on_empty=self._forget
            )
            self._all.add(pool)
        pool.origin = origin
        return pool.wait(on_ready, on_error, fresh=fresh)

    async def dial_raw(self, origin: Origin) -> RawEnd:
        """Return a new connection for a tunnel.

        Raises:
            SidecarError: as ``Dialer.dial``.
        """
        from sidecar.wire.raw_tunnel import RawEnd  # only sidecars that serve a tunnel load it

        if self._closed:
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed")
        try:
            end = await self._dialer.dial(origin, lambda: RawEnd(self._limits, self.raw))
        except SidecarError as error:
            self.counts["failed"] += 1
            self._note_failing(f"{origin.host}:{origin.port}", error)
            raise
        self.counts["opened"] += 1
        self.failing.pop(f"{origin.host}:{origin.port}", None)
        self._holding.apply(end.transport)
        return end

    def retire(self, of: Callable[[Hashable], bool] = lambda _key: True) -> None:
        """Retire the connections whose key ``of`` selects: they serve no further call, and close when idle."""
        for key in [key for key in self.pools if of(key)]:
            self.pools.pop(key).retire()

    def hold(self, *, little: bool) -> None:
        """Switch to small or usual buffers."""
        transports = [one.transport for one in self.connections] + [one.transport for one in self.raw]
        self._holding.change(transports, little=little)

    async def close(self) -> None:
        """Cut all connections, requests in flight included, and wait until they are closed."""
        self._closed = True
        pools = tuple(self._all)
        for pool in pools:
            pool.retire()
            pool.fail_all(Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed"))
        attempts = [attempt for pool in pools for attempt in pool.attempts]
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
        for end in self.raw:
            end.transport.abort()
        await self.connections.wait_for_empty()
        await self.raw.wait_for_empty()

    async def _open(self, pool: OriginPool) -> Upstream:
        """Open a connection. Errors as ``Dialer.dial``."""
        origin = pool.origin
        name = f"{origin.host}:{origin.port}"
        try:
            made = await self._dialer.dial(origin, lambda: self._new(pool))
        except SidecarError as error:
            self._note_failing(name, error)
            raise
        self.failing.pop(name, None)
        line, upstream = made.first_upstream()
        # Not in connection_made: when cancelled just then, uvloop closes the transport and never calls connection_lost.
        if upstream.usable:
            pool.alive.add(line)
            self.connections.add(line)
            self._holding.apply(line.transport)
            if origin.life_s is not None:
                line.live_at_most(origin.life_s(line.transport) * random.uniform(0.8, 1.0))  # noqa: S311
        return upstream

    def _new(self, pool: OriginPool) -> ClientConnection:
        http2 = pool.origin.http2
        age_s = self._limits.max_age_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads, hides nothing
        if not http2:
            return ClientConnection(
                self._limits, self.connections, on_idle=pool.keep, on_closed=pool.forget, max_age_s=age_s
            )
        from sidecar.wire.h2_negotiation import UpstreamVersion  # loaded with its library where it is used

        return UpstreamVersion(
            self._limits,
            self.connections,
            prior=http2 == "prior",
            on_idle=pool.keep,
            on_closed=pool.forget,
            max_age_s=age_s,
        )

    def _note_failing(self, name: str, error: SidecarError) -> None:
        self.failing.pop(name, None)  # to the end, as the newest
        self.failing[name] = Failing(self.connections.clock(), error.reason, error.detail)
        while len(self.failing) > _MAX_FAILING:
            del self.failing[next(iter(self.failing))]

    def _forget(self, pool: OriginPool) -> None:
        """Forget the pool of an origin that has no connection and no call."""
        self._all.discard(pool)
        if self.pools.get(pool.origin.key) is pool:
            del self.pools[pool.origin.key]


def new_counts() -> dict[PoolEvent, int]:
    """Return a zero for every event."""
    return {"opened": 0, "failed": 0, "retried": 0}
