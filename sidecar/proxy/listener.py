"""A listener: counts connections against the descriptors there are, and gives each to a handler."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.identity.acceptor import Acceptor, Handshakes
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record import Direction
from sidecar.proxy.answers import refuse_unread
from sidecar.wire.connections import Connections
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.h1_server import RequestHandler, ServerConnection, ServerLimits

_RESERVED_DESCRIPTORS: Final = 64  # upstream connections, keys, STS, sink: what must go on when peers take the rest
_SHED_PER_RESERVE: Final = 4
MAX_CONNECTIONS: Final = 8192  # of one listener, however many descriptors there are: each may cost 100 KiB
_LOOK_AGAIN_S: Final = 0.1
DRAIN_GRACE_S: Final = 1.0  # for requests that were sent before their caller could know that we stop
_LAST_WORDS_S: Final = 0.5  # for a refusal to leave before the connection is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """Where to listen, and how many at once. ``max_connections`` None: what the process's descriptors allow.

    At the cap a connection that was idle for ``idle_s`` makes room for a new one.
    ``shared``: one of several workers that listen at one address.
    Handshakes never take more than half of the connections, however many ``max_handshakes`` are.
    """

    host: str
    port: int
    handshake_timeout_s: float = 5.0
    max_handshakes: int = 256
    max_connections: int | None = None
    idle_s: float = 1.0
    backlog: int = 1024
    shared: bool = False


class Listener:
    """Accepts connections for one handler. ``shed`` serves those above the cap: it only says that we are overloaded."""

    def __init__(
        self,
        settings: ListenerSettings,
        limits: ServerLimits,
        *,
        handler: RequestHandler,
        shed: RequestHandler,
        context: ssl.SSLContext | None,
        proxy_form: bool = False,
    ) -> None:
        self.connections: Connections[ServerConnection] = Connections()
        self._limits = limits
        self.handler = handler
        self._shed = shed
        self._proxy_form = proxy_form
        self._settings = settings
        self._look_again_at = 0.0
        self._max_connections = settings.max_connections or _descriptor_budget()
        self.direction: Direction = "outbound" if context is None else "inbound"
        self._acceptor = Acceptor(
            settings.host, settings.port, self._admit, backlog=settings.backlog, shared=settings.shared
        )
        self._handshakes = Handshakes(
            context,
            most=None if context is None else min(settings.max_handshakes, max(1, self._max_connections // 2)),
            timeout_s=settings.handshake_timeout_s,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; the port is the real one where 0 was asked for."""
        return self._acceptor.address

    @property
    def max_connections(self) -> int:
        """How many connections are served at once; who comes above that is told that we are overloaded."""
        return self._max_connections

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is taken or not ours.
        """
        self._acceptor.open()

    def close(self) -> None:
        """Stop accepting. Connections stay."""
        self._acceptor.close()

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting and let every request being served end. Whether all ended in time.

        Connections on which nothing happens stay a little: a request that was sent before its caller could know is
        served too, and told that it is the last.
        """
        grace_s = min(DRAIN_GRACE_S, timeout_s / 2)
        self._acceptor.finish()
        self.connections.drain(grace_s)
        began_at = self.connections.clock()
        await self._handshakes.finish(grace_s)
        return await self._emptied(timeout_s - (self.connections.clock() - began_at))

    async def abort(self) -> None:
        """End everything now, and wait until it has ended: by then each request has closed its record."""
        self.close()
        await self._handshakes.close()
        for connection in self.connections:
            connection.stop(Unavailable(Reason.DRAINING, "it took longer than the drain"))
        if not await self._emptied(_LAST_WORDS_S):
            for connection in self.connections:
                connection.transport.abort()
            await self.connections.wait_for_empty()

    async def _emptied(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self.connections.wait_for_empty()
        except TimeoutError:
            return False
        return True

    def _admit(self, accepted: socket.socket, address: str) -> None:
        taken = len(self.connections) + len(self._handshakes)
        if taken >= self._max_connections + _RESERVED_DESCRIPTORS // _SHED_PER_RESERVE:
            accepted.close()
            return
        has_room = taken < self._max_connections or self._make_room()
        handler = self.handler if has_room else self._shed
        self._handshakes.start(
            accepted,
            address,
            lambda: ServerConnection(handler, self._limits, self.connections, proxy_form=self._proxy_form),
        )

    def _make_room(self) -> bool:
        """End the connection that has been idle longest, if it has for a while: who waits at the door comes first.

        So nobody locks others out by holding connections. Not looked for again at once where there was none.
        """
        now = self.connections.clock()
        if now < self._look_again_at:
            return False
        idle = [(since, id(one), one) for one in self.connections if (since := one.idle_since) is not None]
        since, _, oldest = min(idle, default=(now, 0, None))
        if oldest is None or now - since < self._settings.idle_s:
            self._look_again_at = now + _LOOK_AGAIN_S
            return False
        oldest.finish()
        return True


class Shed:
    """The handler of connections above the cap: an answer, so that callers know, and a record."""

    def __init__(self, log: AccessLog, direction: Direction) -> None:
        self._log = log
        self._direction = direction

    def on_request(self, exchange: ServerExchange) -> None:
        """Say that there is no room, and hang up: the caller's next connection may find some."""
        refuse_unread(self._log, self._direction, exchange, Unavailable(Reason.OVERLOADED), hang_up=True)

    def on_refused(self, exchange: ServerExchange, error: SidecarError) -> None:
        """What is no request is refused as ever."""
        refuse_unread(self._log, self._direction, exchange, error)


def _descriptor_budget() -> int:
    """A quarter of what may be open, but for the reserve: two listeners, and a proxied request has two ends."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = min(_RESERVED_DESCRIPTORS, soft // 4)
    return max(1, min(MAX_CONNECTIONS, (soft - reserve) // 4))
