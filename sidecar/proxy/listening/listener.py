"""A listener: collects the facts for admission, carries out the decision, and gives each connection to a handler."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from math import inf
from typing import Final

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.records.record import Direction
from sidecar.admission import Admit, Candidates, Evict, Load, Shed, Wait, before_accept, on_accept
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import HandshakeQueue, OnGivenUp, host_of
from sidecar.identity.stages import Arrival
from sidecar.observe.access_log import AccessLog
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
_LEAST_CONNECTIONS: Final = 8  # served even while memory is short: a sidecar without connections is useless
DRAIN_GRACE_S: Final = 1.0  # for requests that were sent before their caller learned that we stop
_CLOSING_S: Final = 86400.0  # the connection has a time limit of its own; asyncio's would cut it after 30 s
_LAST_WORDS_S: Final = 0.5  # to send a refusal before the connection is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings(ConnectionLimits):
    """Address of a listener, and its limits. ``shared``: several workers listen at this address."""

    host: str
    port: int
    backlog: int = 1024
    shared: bool = False


class Listener:
    """Accepts connections for one handler. ``shed`` refuses the requests on connections above the limit.

    ``refused_connections`` is called for each connection closed before the end of its handshake. ``closes_at`` is the
    end of the listener, in wall seconds. ``door``: callers use TLS without a client certificate. ``connection`` is the
    class of the connections: for HTTP/1.1 alone, or for the version that each caller chooses.
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
        """Host and port of the listener; for port 0, the port that the system chose."""
        return self._acceptor.address

    @property
    def ended(self) -> bool:
        """True once the listener has closed for good, at ``closes_at`` or by ``end``."""
        return self._ended

    @property
    def max_connections(self) -> int:
        """Limit of connections served at once. Requests on connections above it are refused as overloaded."""
        return self._max_connections

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is in use, or does not belong to this host.
        """
        self._acceptor.open()

    def open_until_end(self, now: float) -> None:
        """Bind and start to accept, unless ``closes_at`` has passed. Raises as ``open``."""
        if now < self._closes_at and not self._ended:
            self.open()

    def close_at_end(self, now: float) -> None:
        """Call ``end`` if ``closes_at`` has passed."""
        if now >= self._closes_at:
            self.end()

    def end(self) -> None:
        """Stop accepting for good, if ``closes_at`` is set. Close idle connections now, others after their answer."""
        if self._closes_at < inf and not self._ended:
            self._ended = True
            self.close()
            self.connections.drain(0.0)

    def close(self) -> None:
        """Stop accepting. Open connections stay."""
        self._acceptor.close()

    def tighten(self, *, at_once: bool) -> None:
        """While memory is short, lower the limit to the connections there are now; call it again as they end.

        Evict idle connections and unread answers; ``at_once``: also answers that their peer reads slowly. Requests on
        connections above the limit are refused as overloaded.
        """
        limit = self._limit
        self.brace()
        self.connections.relieve_memory(slow_ones=at_once)
        self._limit = max(min(_LEAST_CONNECTIONS, self._max_connections), min(limit, self._held))

    def brace(self) -> None:
        """While memory is nearly short, run fewer handshakes at a time and buffer less of each answer."""
        self._limit = self._max_connections
        self._handshakes.hold_to(_HANDSHAKES_WHEN_SHORT)
        self.connections.hold(little=True)

    def relax(self) -> None:
        """Restore all limits: memory is no longer short."""
        self._handshakes.hold_to(None)
        self.connections.hold(little=False)
        self._limit = self._max_connections

    def leave(self) -> None:
        """Keep accepting, but close each connection after its answer."""
        self.connections.drain(DRAIN_GRACE_S)

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting and finish the requests in progress. Return True if all ended within ``timeout_s``.

        Idle connections stay open for a grace period, because a request may be on its way; its answer is the last on
        the connection. Pipelined requests are served for half of the time. Idle connections at the end of the time, and
        peers that do not read the end of a complete answer, are no failure.
        """
        grace_s = min(DRAIN_GRACE_S, timeout_s / 2)
        self._acceptor.finish()
        self.connections.drain(grace_s, timeout_s / 2)
        began_at = self.connections.clock()
        await self._handshakes.finish(grace_s)
        left_s = timeout_s - (self.connections.clock() - began_at)
        if await self._wait_for_empty(left_s - min(_LAST_WORDS_S, left_s / 2)):
            return True
        for connection in self.connections:
            connection.give_up()
        return await self._wait_for_empty(min(_LAST_WORDS_S, left_s / 2))

    async def abort(self) -> None:
        """End all requests and connections now, and wait until each request has closed its record."""
        self.close()
        await self._handshakes.close()
        for connection in self.connections:
            connection.stop(Unavailable(Reason.DRAINING, "it took longer than the drain"))
        if not await self._wait_for_empty(_LAST_WORDS_S):
            for connection in self.connections:
                connection.cut_off()
            await self.connections.wait_for_empty()

    async def _wait_for_empty(self, timeout_s: float) -> bool:
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
        match on_accept(self._load(), self._candidates, host=host, from_address=self._count_from(host)):
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

    def _count_from(self, host: str) -> int | None:
        if self.direction == "outbound" and not self.door:
            return None
        handshakes = self._handshakes
        return self.connections.of(host) + (
            handshakes.running_of(host) if self._spare_descriptors else handshakes.of(host)
        )


class _Candidates:
    """Finds handshakes and connections to evict, for ``sidecar.admission``."""

    def __init__(self, handshakes: HandshakeQueue, connections: ConnectionTable) -> None:
        self.handshake = handshakes.first_to_evict
        self.connection = connections.first_to_evict
        self.soon = connections.evictable_soon


class ShedHandler:
    """Refuses the requests on connections above the limit, with an answer and a record each.

    ``unproven`` limits the rate of records of callers without a proven identity; None: callers prove theirs.
    """

    def __init__(self, log: AccessLog, direction: Direction, unproven: UnprovenRecords | None = None) -> None:
        self._log = log
        self._direction = direction
        self._unproven = unproven

    def on_request(self, exchange: Stream) -> None:
        """Refuse a request as overloaded and close the connection: the caller's next one may be admitted."""
        error = Unavailable(Reason.OVERLOADED)
        refuse_unread(self._log, self._direction, exchange, error, hang_up=True, unproven=self._unproven)

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        """Refuse an invalid request with the reason of ``error``."""
        refuse_unread(self._log, self._direction, exchange, error, unproven=self._unproven)
