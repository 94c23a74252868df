"""A listener: counts connections against the descriptors there are, and gives each to a handler."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import HandshakeQueue, OnGivenUp, host_of
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record import Direction
from sidecar.proxy.admission import Admission, ConnectionLimits, reserve
from sidecar.proxy.answers import refuse_unread
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.h1_server import RequestHandler, ServerConnection, ServerLimits

_SHED_PER_RESERVE: Final = 4
_HANDSHAKES_WHEN_SHORT: Final = 8  # a turn of the loop is short then, and the next look at the memory in time
_LEAST_CONNECTIONS: Final = 8  # that are served however short memory is: a sidecar that serves nobody is of no use
DRAIN_GRACE_S: Final = 1.0  # for requests that were sent before their caller could know that we stop
_CLOSING_S: Final = 86400.0  # the connection itself judges how fast its peer takes the rest; the loop would at 30 s
_LAST_WORDS_S: Final = 0.5  # for a refusal to leave before the connection is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings(ConnectionLimits):
    """Where to listen, and how many at once. ``shared``: one of several workers that listen at one address."""

    host: str
    port: int
    backlog: int = 1024
    shared: bool = False


class Listener:
    """Accepts connections for one handler. ``shed`` serves those above the cap: it only says that we are overloaded.

    ``turned_away`` hears of the connections that were closed before their handshake was over.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        limits: ServerLimits,
        *,
        handler: RequestHandler,
        shed: RequestHandler,
        turned_away: OnGivenUp,
        context: ssl.SSLContext | None,
        proxy_form: bool = False,
    ) -> None:
        self._max_connections = self._cap = settings.in_all
        self._of_one_address = settings.of_one_address
        self._apart = settings.apart
        self._handshakes = HandshakeQueue(
            context,
            most=None if context is None else min(settings.max_handshakes, max(1, self._max_connections // 2)),
            room=settings.before_handshake,
            timeout_s=settings.handshake_timeout_s,
            closing_s=_CLOSING_S,
            on_given_up=turned_away,
        )
        self.connections = Admission(settings, shed=shed, on_made=self._handshakes.over)
        self._limits = limits
        self.handler = handler
        self._shed = shed
        self._proxy_form = proxy_form
        self._turned_away = turned_away
        self._tls = context is not None
        self.direction: Direction = "outbound" if context is None else "inbound"
        self._acceptor = Acceptor(
            settings.host,
            settings.port,
            self._admit,
            is_full=self._is_full,
            backlog=settings.backlog,
            shared=settings.shared,
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

    def tighten(self, *, at_once: bool) -> None:
        """Memory is short: no more connections than there are now, and one less with each that goes.

        First go those on which nothing moves; ``at_once``: also an answer that its peer merely takes slowly. Who comes
        in spite of it is told that we are overloaded.
        """
        cap = self._cap
        self.brace()
        self.connections.end_waiting(slow_ones=at_once)
        self._cap = max(min(_LEAST_CONNECTIONS, self._max_connections), min(cap, self._taken))

    def brace(self) -> None:
        """Memory may be short soon: as many connections as ever, but they come one after another, and hold less."""
        self._cap = self._max_connections
        self._handshakes.hold_to(_HANDSHAKES_WHEN_SHORT)
        self.connections.hold(little=True)

    def relax(self) -> None:
        """There is memory again: all is as ever."""
        self._handshakes.hold_to(None)
        self.connections.hold(little=False)
        self._cap = self._max_connections

    @property
    def _taken(self) -> int:
        handshakes = self._handshakes
        return len(self.connections) + (handshakes.running if self._apart else len(handshakes))

    def leave(self) -> None:
        """Go on as before, but let nobody stay: each answer is the last on its connection."""
        self.connections.drain(DRAIN_GRACE_S)

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting and let every request being served end. Whether all ended in time.

        Connections on which nothing happens stay a little: a request that was sent before its caller could know is
        served too, and told that it is the last; those that wait behind another are served for half of the time. A peer
        that was given everything and does not take the end of it is waited for, and is no failure; nor is one that asks
        for nothing, when there is no time left to wait.
        """
        grace_s = min(DRAIN_GRACE_S, timeout_s / 2)
        self._acceptor.finish()
        self.connections.drain(grace_s, timeout_s / 2)
        began_at = self.connections.clock()
        await self._handshakes.finish(grace_s)
        left_s = timeout_s - (self.connections.clock() - began_at)
        if await self._emptied(left_s - min(_LAST_WORDS_S, left_s / 2)):
            return True
        for connection in self.connections:
            connection.give_up()
        return await self._emptied(min(_LAST_WORDS_S, left_s / 2))

    async def abort(self) -> None:
        """End everything now, and wait until it has ended: by then each request has closed its record."""
        self.close()
        await self._handshakes.close()
        for connection in self.connections:
            connection.stop(Unavailable(Reason.DRAINING, "it took longer than the drain"))
        if not await self._emptied(_LAST_WORDS_S):
            for connection in self.connections:
                connection.cut_off()
            await self.connections.wait_for_empty()

    async def _emptied(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self.connections.wait_for_empty()
        except TimeoutError:
            return False
        return True

    def _is_full(self) -> bool:
        """Whether to leave who comes in the system's queue for a moment, instead of turning somebody away."""
        if self._handshakes.full:
            return True
        taken, connections = self._taken, self.connections
        if taken < min(self._cap, self._of_one_address) or connections.can_make_room():
            return False
        if self._handshakes.can_make_room():
            return False
        patiently = taken >= self._cap or connections.of_one_host  # one address keeps no other waiting for long
        return self._handshakes.under_way or connections.room_is_near(patiently=patiently)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        host = host_of(address)
        connections, handshakes = self.connections, self._handshakes
        coming = handshakes.running_of(host) if self._apart else handshakes.of(host)
        if self._taken >= self._cap + max(1, reserve() // _SHED_PER_RESERVE):
            self._turn_away(accepted, address, "there are too many connections")
            return
        if (
            self._tls
            and connections.of(host) + coming >= self._of_one_address
            and not (handshakes.make_room_at(host) or connections.make_room_at(host))
        ):
            self._turn_away(accepted, address, "too many connections from this address")
            return
        has_room = self._taken < self._cap or handshakes.make_room() or connections.make_room()
        handler = self.handler if has_room else self._shed
        handshakes.start(
            accepted,
            address,
            lambda: ServerConnection(handler, self._limits, connections, proxy_form=self._proxy_form),
        )

    def _turn_away(self, accepted: socket.socket, address: str, why: str) -> None:
        accepted.close()
        self._turned_away(Reason.OVERLOADED, why, address)


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
