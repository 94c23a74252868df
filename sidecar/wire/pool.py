"""Kept upstream connections: which may be used again, and for whom.

Connections are shared only between requests to one ``Origin.key``, which holds everything that must not be mixed: peer
identity and the generation of our own. The last one returned is taken first, so that the rest can age and go.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import ClientLimits


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go. Connections are shared by equal ``key``: host, port, peer identity, own generation …

    ``still_good`` is asked before a kept connection is used again: the peer's identity may have ended meanwhile.
    """

    host: str
    port: int
    key: Hashable
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    server_name: str | None = None
    still_good: Callable[[asyncio.BaseTransport], bool] | None = field(default=None, repr=False)


class Cancellable(Protocol):
    """A wait that can be given up; its callbacks are then never called."""

    def cancel(self) -> None:
        """Give up."""


class _Connecting:
    """One connection attempt for one waiting request."""

    def __init__(self, on_ready: Callable[[ClientConnection], None], on_error: Callable[[SidecarError], None]) -> None:
        self._on_ready = on_ready
        self._on_error = on_error
        self.cancelled = False
        self.task: asyncio.Task[ClientConnection] | None = None

    def cancel(self) -> None:
        """Give up."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    def finished(self, task: asyncio.Task[ClientConnection]) -> None:
        """Tell the one who waits; a connection nobody waits for any more is closed."""
        if task.cancelled():
            if not self.cancelled:
                self._on_error(Unavailable(Reason.UPSTREAM_UNREACHABLE, "the pool was closed"))
            return
        error = task.exception()
        if error is None:
            connection = task.result()
            if self.cancelled:
                connection.close()
            elif connection.usable:
                self._on_ready(connection)
            else:
                self._on_error(Unavailable(Reason.UPSTREAM_UNREACHABLE, "the upstream closed a new connection"))
        elif not self.cancelled:
            if isinstance(error, SidecarError):
                self._on_error(error)
            else:
                self._on_error(SidecarError(Reason.INTERNAL, type(error).__name__))
                raise error  # a bug: the request ends, and the loop's exception handler hears of it


class UpstreamPool:
    """The connections to all upstreams of one listener."""

    def __init__(self, limits: ClientLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.connections: Connections[ClientConnection] = Connections(clock=clock)
        self._limits = limits
        self._idle: dict[Hashable, list[ClientConnection]] = {}
        self._connecting: set[asyncio.Task[ClientConnection]] = set()
        self._closed = False

    def take(self, origin: Origin) -> ClientConnection | None:
        """A kept connection that is free, or None. Never waits."""
        idle = self._idle.get(origin.key)
        while idle:
            connection = idle.pop()
            if not connection.usable:
                continue
            if origin.still_good is None or origin.still_good(connection.transport):
                return connection
            connection.close()
        return None

    def connect(
        self,
        origin: Origin,
        on_ready: Callable[[ClientConnection], None],
        on_error: Callable[[SidecarError], None],
    ) -> Cancellable:
        """Open a new connection; exactly one of the callbacks is called later, unless it is cancelled.

        Errors: UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT, UPSTREAM_IDENTITY (the TLS handshake failed).
        """
        connecting = _Connecting(on_ready, on_error)
        task = asyncio.get_running_loop().create_task(self._open(origin))
        connecting.task = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        task.add_done_callback(connecting.finished)
        return connecting

    def close_idle(self, of: Callable[[Hashable], bool] = lambda _key: True) -> None:
        """Close kept connections that are free and whose key ``of`` selects."""
        for key in [key for key in self._idle if of(key)]:
            for connection in self._idle.pop(key):
                connection.close()

    async def close(self) -> None:
        """Cut everything, requests under way included, and wait until it is gone."""
        self._closed = True
        self.close_idle()
        connecting = list(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
        await self.connections.wait_for_empty()

    async def _open(self, origin: Origin) -> ClientConnection:
        loop = asyncio.get_running_loop()
        age = self._limits.max_age_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads reconnects, no secret

        def made() -> ClientConnection:
            return ClientConnection(
                self._limits,
                self.connections,
                on_idle=lambda connection: self._keep(origin.key, connection),
                on_closed=lambda connection: self._forget(origin.key, connection),
                max_age_s=age,
            )

        server_name = (origin.server_name or origin.host) if origin.tls is not None else None
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                _, connection = await loop.create_connection(
                    made, origin.host, origin.port, ssl=origin.tls, server_hostname=server_name
                )
        except TimeoutError as error:
            raise Unavailable(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "the upstream closed during the handshake") from error
        except ssl.SSLError as error:
            raise Denied(Reason.UPSTREAM_IDENTITY, "the TLS handshake failed") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot express
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, type(error).__name__) from error
        # Not in connection_made: when cancelled just then, uvloop closes the transport and never calls connection_lost.
        if connection.usable:
            self.connections.add(connection)
        return connection

    def _keep(self, key: Hashable, connection: ClientConnection) -> None:
        idle = self._idle.setdefault(key, [])
        if self._closed or len(idle) >= self._limits.max_idle:
            connection.close()
        else:
            idle.append(connection)

    def _forget(self, key: Hashable, connection: ClientConnection) -> None:
        idle = self._idle.get(key)
        if idle is None:
            return
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[key]
