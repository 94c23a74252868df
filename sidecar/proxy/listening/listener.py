"""A listener: collects the facts for admission, carries out the decision, and gives each connection to a handler."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from math import inf
from typing import Final

from sidecar.admission import Admit, Candidates, Evict, Load, Shed, Wait, before_accept, on_accept
from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import HandshakeQueue, OnGivenUp, host_of
from sidecar.identity.stages import Arrival
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record import Direction
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.proxy.journeys.answers import refuse_unread
from sidecar.proxy.listening.connection_limits import ConnectionLimits, reserve
from sidecar.proxy.listening.connection_table import ConnectionTable
from sidecar.wire.caller_connection import CallerConnection
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import RequestHandler, Stream

_OVERFLOW_PER_RESERVE: Final = 4
_HANDSHAKES_WHEN_SHORT: Final = 8  # short event-loop iterations, so that memory is read in time
_LEAST_CONNECTIONS: Final = 8  # served however short memory is: a sidecar without connections is useless
DRAIN_GRACE_S: Final = 1.0  # for requests that were sent before their caller could know that we stop
_CLOSING_S: Final = 86400.0  # the connection itself judges how fast its peer takes the rest; the loop would at 30 s
_LAST_WORDS_S: Final = 0.5  # for a refusal to leave before the connection is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings(ConnectionLimits):
    """An address to listen at, and limits. ``shared``: several workers listen at this address."""

    host: str
    port: int
    backlog: int = 1024
    shared: bool = False


class Listener:
    """Accepts connections for one handler. ``shed`` serves those above the limit: it only says that we are overloaded.

    ``refused_connections`` is told of connections that were closed before their handshake was over. ``closes_at`` is
    the end of the listener, in wall seconds. ``door``: strangers connect, with TLS, and prove nothing by it.
    ``connection`` makes the connections: of HTTP/1.1, or of the version that each caller chooses.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        limits: ServerLimits,
        *,
        handler: RequestHandler,
        shed: RequestHandler,
        refused_connections: OnGivenUp,
        context: ssl.SSLContext | None,
        direction: Direction | None = None,
        proxy_form: bool = False,
        closes_at: float = inf,
        door: bool = False,
        connection: type[ServerConnection] = ServerConnection,
        warm: Warm | None = None,
    ) -> None:
        self._max_connections = self._limit = settings.total
        self._per_address = settings.per_address
        self._spare_descriptors = settings.spare_descriptors
        self._overflow = max(1, reserve() // _OVERFLOW_PER_RESERVE)
        self._handshakes = HandshakeQueue(
            context,
            most=None if context is None else min(settings.max_handshakes, max(1, self._max_connections // 2)),
            room=settings.before_handshake,
            timeout_s=settings.handshake_timeout_s,
            closing_s=_CLOSING_S,
            on_given_up=refused_connections,
        )
        self.connections = ConnectionTable(settings, shed=shed, on_made=self._handshakes.over)
        self._candidates: Candidates[Arrival | CallerConnection] = _Candidates(self._handshakes, self.connections)
        self._server_limits = limits
        self.handler = handler
        self._shed = shed
        self._warm = warm
        self._proxy_form = proxy_form
        self._connection = connection
        self._turned_away = refused_connections
        self.direction: Direction = direction or ("outbound" if context is None else "inbound")
        self._closes_at = closes_at
        self.door = door
        self._proving = context is not None and not door
        self._ended = False
        self._acceptor = Acceptor(
            settings.host,
            settings.port,
            self._admit,
            before_accept=self._before_accept,
            backlog=settings.backlog,
            shared=settings.shared,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; the port is the real one where 0 was asked for."""
        return self._acceptor.address

    @property
    def ended(self) -> bool:
        """True once its end has come: nobody of ours listens there again."""
        return self._ended

    @property
    def max_connections(self) -> int:
        """The number of connections served at once. Above it, callers are told that we are overloaded."""
        return self._max_connections

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is taken or not ours.
        """
        self._acceptor.open()

    def open_until_end(self, now: float) -> None:
        """Bind and start to accept, unless its end has come. Errors as ``open``."""
        if now < self._closes_at and not self._ended:
            self.open()

    def close_at_end(self, now: float) -> None:
        """Stop accepting once its end has come; idle connections are closed, others after their answer."""
        if now >= self._closes_at:
            self.end()

    def end(self) -> None:
        """Stop accepting for good, if it has an end at all; connections as of ``close_at_end``."""
        if self._closes_at < inf and not self._ended:
            self._ended = True
            self.close()
            self.connections.drain(0.0)

    def close(self) -> None:
        """Stop accepting. Connections stay."""
        self._acceptor.close()

    def tighten(self, *, at_once: bool) -> None:
        """Memory is short: serve no more connections than there are now, and one less with each that ends.

        Idle ones are evicted, and answers that are not taken; ``at_once``: also answers that are taken slowly.
        Connections above the limit are told that we are overloaded.
        """
        limit = self._limit
        self.brace()
        self.connections.relieve_memory(slow_ones=at_once)
        self._limit = max(min(_LEAST_CONNECTIONS, self._max_connections), min(limit, self._held))

    def brace(self) -> None:
        """Memory may be short soon: keep the limit, run fewer handshakes at a time, and buffer less of each answer."""
        self._limit = self._max_connections
        self._handshakes.hold_to(_HANDSHAKES_WHEN_SHORT)
        self.connections.hold(little=True)

    def relax(self) -> None:
        """Memory is no longer short: restore all limits."""
        self._handshakes.hold_to(None)
        self.connections.hold(little=False)
        self._limit = self._max_connections

    def leave(self) -> None:
        """Go on accepting, but make each answer the last on its connection."""
        self.connections.drain(DRAIN_GRACE_S)

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting and let every request being served end. Return True if all ended in time.

        Idle connections stay for a grace period: a request that was sent before its caller could know is served, and
        its answer says that it is the last. Requests that wait behind another are served for half of the time. A peer
        that was sent everything and does not read the end of it is waited for, and is not a failure; nor is an idle one
        when the time is over.
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
        """End everything now, and wait until each request has closed its record."""
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

    # --- admission

    @property
    def _held(self) -> int:
        handshakes = self._handshakes
        return len(self.connections) + (handshakes.running if self._spare_descriptors else len(handshakes))

    def _load(self) -> Load:
        handshakes = self._handshakes
        return Load(
            self._held,
            self._limit,
            self._overflow,
            self._per_address,
            handshakes.pending,
            handshakes.full,
            self.connections.of_one_host,
            self._proving,
        )

    def _before_accept(self) -> Admit | Wait:
        return before_accept(self._load(), self._candidates)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        host, handler, warm = host_of(address), self.handler, self._warm
        match on_accept(self._load(), self._candidates, host=host, from_address=self._from_address(host)):
            case Shed(why, answered=False):
                accepted.close()
                self._turned_away(Reason.OVERLOADED, why, address)
                return
            case Shed():
                handler, warm = self._shed, None
            case Evict(which):
                if isinstance(which, Arrival):
                    self._handshakes.evict(which)
                else:
                    self.connections.evict(which)
        self._handshakes.start(
            accepted,
            address,
            lambda: self._connection(
                handler, self._server_limits, self.connections, proxy_form=self._proxy_form, warm=warm
            ),
        )

    def _from_address(self, host: str) -> int | None:
        if self.direction == "outbound" and not self.door:
            return None
        handshakes = self._handshakes
        return self.connections.of(host) + (
            handshakes.running_of(host) if self._spare_descriptors else handshakes.of(host)
        )


class _Candidates:
    """Finds what may be evicted."""

    def __init__(self, handshakes: HandshakeQueue, connections: ConnectionTable) -> None:
        self.handshake = handshakes.first_to_evict
        self.connection = connections.first_to_evict
        self.soon = connections.evictable_soon


class ShedHandler:
    """Serves connections above the limit: an answer, so that callers know, and a record.

    ``unproven`` limits the records, where callers prove no identity.
    """

    def __init__(self, log: AccessLog, direction: Direction, unproven: UnprovenRecords | None = None) -> None:
        self._log = log
        self._direction = direction
        self._unproven = unproven

    def on_request(self, exchange: Stream) -> None:
        """Refuse as overloaded and close: the caller's next connection may be admitted."""
        error = Unavailable(Reason.OVERLOADED)
        refuse_unread(self._log, self._direction, exchange, error, hang_up=True, unproven=self._unproven)

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        """Refuse an invalid request with its own reason."""
        refuse_unread(self._log, self._direction, exchange, error, unproven=self._unproven)
