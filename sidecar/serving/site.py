"""A site of aiohttp's whose TLS connections we accept ourselves, so that a refused handshake has an address."""

from __future__ import annotations

import resource
import socket
import ssl
from typing import Final

from aiohttp import web

from sidecar.admission import WAIT, Admit, Wait
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.handshake_queue import MOST_CONNECTIONS, HandshakeQueue, OnGivenUp
from sidecar.serving.connections import Connections

HANDSHAKE_TIMEOUT_S: Final = 5.0
MAX_HANDSHAKES: Final = 1024
_OWN_DESCRIPTORS: Final = 64  # for everything except connections


class TlsSite(web.BaseSite):
    """A site of a runner's, in place of ``TCPSite``. ``address`` holds the real port where 0 was asked for.

    Connections before their handshake take descriptors that none of ``connections`` needs, so that a silent crowd takes
    no place from them; without such descriptors they share those there are.
    """

    __slots__ = ("_acceptor", "_connections", "_handshakes", "_shares")

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        connections: Connections,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        max_handshakes: int = MAX_HANDSHAKES,
        on_given_up: OnGivenUp | None = None,
    ) -> None:
        """Wrap each protocol of the runner's by ``connections``.

        ``on_given_up`` is told of handshakes that took too long, or were evicted for another.
        """
        super().__init__(runner, ssl_context=context)
        self._connections = connections
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        others = descriptors - _OWN_DESCRIPTORS - connections.limit
        self._shares = others < max_handshakes
        self._handshakes = HandshakeQueue(
            context,
            most=max_handshakes,
            room=min(MOST_CONNECTIONS, max(max_handshakes, others)),
            timeout_s=handshake_timeout_s,
            on_given_up=on_given_up,
        )
        self._acceptor = Acceptor(host, port, self._admit, before_accept=self._before_accept)

    @property
    def name(self) -> str:
        """Its URL."""
        host, port = self.address
        return f"https://{host}:{port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._acceptor.address

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        await super().start()
        self._acceptor.open()

    async def finish(self, grace_s: float) -> None:
        """Stop accepting after what waits to be accepted; let handshakes in flight finish for ``grace_s``."""
        self._acceptor.finish()
        await self._handshakes.finish(grace_s)

    async def stop(self) -> None:
        """Stop accepting. Connections stay; handshakes in flight are ended."""
        self._acceptor.close()
        await self._handshakes.close()
        await super().stop()

    def _before_accept(self) -> Admit | Wait:
        handshakes = self._handshakes
        if handshakes.full:
            return WAIT
        return self._connections.before_accept(len(handshakes) if self._shares else handshakes.running)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        self._handshakes.start(accepted, address, self._connections)
