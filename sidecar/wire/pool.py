"""Pool of upstream connections: which may be reused, and by which requests.

Connections are shared only between requests to one ``Origin.key``, which holds everything that must not be mixed: peer
identity and our own SVID. The queue of calls for one key is in ``origin_pool``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, Protocol

from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Dialer, Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import BufferLimits, ClientLimits
from sidecar.wire.origin_pool import OnError, OnReady, OriginPool, PoolEvent
from sidecar.wire.resolver import Resolver

__all__ = ["Cancellable", "Failing", "Origin", "UpstreamPool", "new_counts"]

_MAX_FAILING: Final = 64  # upstreams come from the settings, and those of before a reload are forgotten


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

    ``failing`` has the upstreams, as HOST:PORT, to which the last attempt to connect failed. ``counts`` is added to, by
    ``PoolEvent``. ``unread`` bytes of each connection may wait in the kernel; None: as it
    likes, so that an upstream far away is as fast as it can be.
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
        self.connections: Connections[ClientConnection] = Connections(clock=clock)
        self.counts = new_counts() if counts is None else counts
        self.failing: dict[str, Failing] = {}
        self._limits = limits
        self._holding = BufferLimits(received=unread)
        self._closed = False
        self._dialer = Dialer(resolver or Resolver(), timeout_s=limits.connect_timeout_s)
        self._lines: dict[Hashable, OriginPool] = {}
        self._all: set[OriginPool] = set()  # retired ones too, until their last connection is gone

    def take(self, origin: Origin) -> ClientConnection | None:
        """A kept connection that is free and that no call waits for, or None. Never waits."""
        line = self._lines.get(origin.key)
        return None if line is None or line.usual else line.take(origin.still_good)

    def connect(self, origin: Origin, on_ready: OnReady, on_error: OnError, *, fresh: bool = False) -> Cancellable:
        """Waiter for a connection: one that is opened, or (unless ``fresh``) one that comes free before that.

        Exactly one of the callbacks is called later, unless the wait is cancelled.
        Errors: UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT, UPSTREAM_IDENTITY (the TLS handshake failed).
        """
        if self._closed:
            gone = Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed")
            return asyncio.get_running_loop().call_soon(on_error, gone)
        line = self._lines.get(origin.key)
        if line is None:
            line = self._lines[origin.key] = OriginPool(
                origin, self._limits, self.counts, self.connections.clock, opened=self._open, on_empty=self._forget
            )
            self._all.add(line)
        line.origin = origin
        return line.wait(on_ready, on_error, fresh=fresh)

    def retire(self, of: Callable[[Hashable], bool] = lambda _key: True) -> None:
        """Use connections whose key ``of`` selects for no further call: free ones close now, others once they are."""
        for key in [key for key in self._lines if of(key)]:
            self._lines.pop(key).retire()

    def hold(self, *, little: bool) -> None:
        """Let little of each request and answer wait, or as much as usual again."""
        self._holding.change((one.transport for one in self.connections), little=little)

    async def close(self) -> None:
        """Cut everything, requests under way included, and wait until it is gone."""
        self._closed = True
        lines = tuple(self._all)
        for line in lines:
            line.retire()
            line.fail_all(Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed"))
        attempts = [attempt for line in lines for attempt in line.attempts]
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
        await self.connections.wait_for_empty()

    async def _open(self, line: OriginPool) -> ClientConnection:
        """A new connection of a line's. Errors as ``Dialer.dial``."""
        origin = line.origin
        name = f"{origin.host}:{origin.port}"
        try:
            connection = await self._dialer.dial(
                origin,
                lambda: ClientConnection(
                    self._limits,
                    self.connections,
                    on_idle=line.keep,
                    on_closed=line.forget,
                    max_age_s=self._limits.max_age_s * random.uniform(0.8, 1.0),  # noqa: S311 - spreads, hides nothing
                ),
            )
        except SidecarError as error:
            self._note_failing(name, error)
            raise
        self.failing.pop(name, None)
        # Not in connection_made: when cancelled just then, uvloop closes the transport and never calls connection_lost.
        if connection.usable:
            line.alive.add(connection)
            self.connections.add(connection)
            self._holding.apply(connection.transport)
            if origin.life_s is not None:
                connection.live_at_most(origin.life_s(connection.transport) * random.uniform(0.8, 1.0))  # noqa: S311
        return connection

    def _note_failing(self, name: str, error: SidecarError) -> None:
        self.failing.pop(name, None)  # to the end, as the newest
        self.failing[name] = Failing(self.connections.clock(), error.reason, error.detail)
        while len(self.failing) > _MAX_FAILING:
            del self.failing[next(iter(self.failing))]

    def _forget(self, line: OriginPool) -> None:
        """A line has nothing and nobody left."""
        self._all.discard(line)
        if self._lines.get(line.origin.key) is line:
            del self._lines[line.origin.key]


def new_counts() -> dict[PoolEvent, int]:
    """A count of every event, none yet."""
    return {"opened": 0, "failed": 0, "retried": 0}
