"""A listening socket whose connections we accept ourselves.

An event loop's own server hides what we must know: the address of a peer whose handshake was refused, how many
handshakes are under way, and that descriptors are running out (uvloop then closes silently, asyncio lets connections
hang). So: accept, count, then hand the socket to the loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.identity.handshake import peer_address
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record import Direction
from sidecar.proxy.answers import refuse_unread
from sidecar.proxy.journey import Tasks
from sidecar.wire.connections import Connections
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.h1_server import RequestHandler, ServerConnection, ServerLimits

_log: Final = logging.getLogger("sidecar.listener")

_ACCEPTS_PER_WAKE: Final = 64
_RESERVED_DESCRIPTORS: Final = 64  # upstream connections, keys, STS, sink: what must go on when peers take the rest
_SHED_PER_RESERVE: Final = 4
_PAUSE_S: Final = 0.1
_LAST_WORDS_S: Final = 0.5  # for a refusal to leave before the connection is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """Where to listen, and how many at once. ``max_connections`` None: half the process's descriptors but a reserve.

    Handshakes never take more than half of the connections, however many ``max_handshakes`` are.
    """

    host: str
    port: int
    handshake_timeout_s: float = 5.0
    max_handshakes: int = 256
    max_connections: int | None = None
    backlog: int = 1024


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
        self._settings = settings
        self._limits = limits
        self.handler = handler
        self._shed = shed
        self._context = context
        self._proxy_form = proxy_form
        self._handshakes = Tasks()
        self._unproven: dict[asyncio.Task[None], None] = {}  # the handshakes under way, the oldest first
        self._socket: socket.socket | None = None
        self._max_connections = settings.max_connections or _descriptor_budget()
        self._max_handshakes = min(settings.max_handshakes, max(1, self._max_connections // 2))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; the port is the real one where 0 was asked for."""
        if self._socket is None:
            return self._settings.host, self._settings.port
        host, port = self._socket.getsockname()[:2]
        return host, port

    def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address is taken or not ours.
        """
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._settings.host, self._settings.port))
            listening.listen(self._settings.backlog)
        except OSError:
            listening.close()
            raise
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting. Connections stay."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening.fileno())
            listening.close()

    async def drain(self, timeout_s: float) -> bool:
        """Let every request being served end, then its connection. Whether all ended in time."""
        self.close()
        self.connections.draining = True
        for connection in self.connections:
            connection.finish()
        return await self._emptied(timeout_s)

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

    def _accept(self) -> None:
        # No more than there are places for handshakes: what is given up must have begun, or nobody closes its socket.
        for _ in range(min(_ACCEPTS_PER_WAKE, self._max_handshakes)):
            if self._socket is None:
                return
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._admit(accepted, address)

    def _admit(self, accepted: socket.socket, address: tuple[object, ...]) -> None:
        taken = len(self.connections) + len(self._handshakes)
        if taken >= self._max_connections + _RESERVED_DESCRIPTORS // _SHED_PER_RESERVE:
            accepted.close()
            return
        if self._context is not None and len(self._unproven) >= self._max_handshakes:
            self._give_up_oldest()
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's signature
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler = self.handler if taken < self._max_connections else self._shed
        handshake = self._handshakes.start(self._hand_over(accepted, handler, f"{address[0]}:{address[1]}"))
        self._unproven[handshake] = None
        handshake.add_done_callback(lambda ended: self._unproven.pop(ended, None))

    def _give_up_oldest(self) -> None:
        """Make room for one more handshake. An honest one takes milliseconds, so the oldest is the most likely idler.

        Were the newest turned away instead, a handful of silent connections would lock everybody out.
        """
        oldest = next(iter(self._unproven))
        del self._unproven[oldest]
        oldest.cancel()

    async def _hand_over(self, accepted: socket.socket, handler: RequestHandler, address: str) -> None:
        peer_address.set(address)
        timeout_s = self._settings.handshake_timeout_s if self._context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: ServerConnection(handler, self._limits, self.connections, proxy_form=self._proxy_form),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=timeout_s,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError; who was refused has its event already
            accepted.close()

    def _pause(self, error: OSError) -> None:
        """Descriptors or memory are gone: wait a little, instead of spinning on a socket that stays readable."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            _log.warning("accept failed", extra={"errno": error.errno})
        listening = self._socket
        if listening is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.fileno())
        loop.call_later(_PAUSE_S, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        if self._socket is listening:
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)


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
    """Half of what the process may open, but for the reserve: a proxied request has two ends."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - _RESERVED_DESCRIPTORS) // 2)
