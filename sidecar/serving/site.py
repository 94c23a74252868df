"""An aiohttp site with our own TLS accept loop, so that a refused handshake has an address."""

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
    """A runner's site, in place of ``TCPSite``. ``address`` has the bound port.

    Handshakes in flight use descriptors beyond those reserved for ``connections``, so that silent clients take no slot
    from them; without spare descriptors both share the same ones.
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
        """Wrap each protocol of the runner by ``connections``.

        ``on_given_up`` is called for handshakes that timed out or were evicted.
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
            OSError: the address is in use or not local.
        """
        await super().start()
        self._acceptor.open()

    async def finish(self, grace_s: float) -> None:
        """Accept the queued connections, then stop; handshakes in flight have ``grace_s`` to finish."""
        self._acceptor.finish()
        await self._handshakes.finish(grace_s)

    async def stop(self) -> None:
        """Stop accepting and abort handshakes in flight. Established connections stay."""
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
